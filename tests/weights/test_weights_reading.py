"""Files of other projects' trainers: what is in them comes out, and nothing in them happens."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import sys
import tarfile
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.weights.reading import read_content, read_tensors, tensors_in
from regionvlp.weights.unpickling import Inert


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Makes objects of a class that is gone once they are saved, as a trainer's own are for whoever reads its files."""
    module = types.ModuleType("somebodys_trainer")
    exec("class ConfigParser: pass\nclass Table(dict): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def make() -> Any:
        config, table = module.ConfigParser(), module.Table(a=1)
        config.args = argparse.Namespace(schedule=[2, 4, 8])
        config.path, config.table = PurePosixPath("exps/a"), table
        return config

    return make


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_everything_but_foreign_objects_comes_out(
    as_zip: bool, protocol: int, trainer: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 2))
    state = OrderedDict(w=weight, half=torch.randn(4).half(), brain=torch.randn(2).bfloat16(), whole=torch.arange(3))
    state["turned"] = torch.randn(2, 3).T
    content = {"state_dict": state, "config": trainer(), "epoch": 3, "best": np.float64(1.5), "lr": [(1e-5, {"a"})],
               "counts": defaultdict(list, {1: [2]}), "size": torch.Size([1, 2])}  # fmt: skip
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=as_zip, pickle_protocol=protocol)
    monkeypatch.delitem(sys.modules, "somebodys_trainer")
    found = read_content(path, foreign=True)
    assert found["epoch"] == 3
    assert found["lr"][0][0] == 1e-5
    tensors = tensors_in(found)
    assert list(tensors) == list(state)
    for name, tensor in state.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype is tensor.dtype
    assert isinstance(found["config"], Inert)
    assert found["config"].state["args"].state == {"schedule": [2, 4, 8]}


class Attack:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "attack",
    [
        lambda mark: Attack(os.system, f"touch {mark}"),
        lambda mark: Attack(eval, f"open({str(mark)!r}, 'w')"),
        lambda mark: Attack(open, str(mark), "w"),
        lambda mark: [Attack(getattr, Path(mark), "touch")],
        lambda mark: {"state_dict": Attack(torch.save, {}, str(mark))},
    ],
)
def test_what_a_file_asks_for_is_not_done(attack: Callable[[Path], Any], as_zip: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "checkpoint.pth", tmp_path / "mark"
    content = {"attack": attack(mark), "state_dict": {"w": torch.ones(2)}}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    assert torch.equal(read_tensors(path, foreign=True)["w"], torch.ones(2))
    with pytest.raises(WeightsError, match="was refused: it asks for"):
        read_tensors(path)
    assert not mark.exists()


def test_a_function_cannot_be_changed(tmp_path: Path) -> None:
    """A pickle may set the attributes of what it names: the defaults of torch's own function, for one."""
    path = tmp_path / "checkpoint.pth"
    defaults = torch._utils._rebuild_tensor_v2.__defaults__
    build = b"ctorch._utils\n_rebuild_tensor_v2\n(N}X\x0c\x00\x00\x00__defaults__)stb."
    with pytest.MonkeyPatch.context() as undone:
        undone.setattr(torch._utils._rebuild_tensor_v2, "__defaults__", defaults)
        assert pickle.loads(b"\x80\x02" + build).__defaults__ == ()  # what the plain unpickler does
    write_legacy(path, build)
    for foreign in (False, True):
        with pytest.raises(WeightsError, match="was refused: it asks for a change to a function"):
            read_content(path, foreign=foreign)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults


@pytest.mark.parametrize("name", ["UntypedStorage", "FloatStorage", "storage TypedStorage", "Tensor"])
def test_a_class_cannot_be_changed(name: str, tmp_path: Path) -> None:
    module, _, kind = f"torch {name}".replace("torch storage ", "torch.storage ").rpartition(" ")
    path = tmp_path / "checkpoint.pth"
    write_legacy(path, f"c{module}\n{kind}\n".encode() + b"N}X\x06\x00\x00\x00markedK\x01s\x86b.")
    for foreign in (False, True):
        with contextlib.suppress(WeightsError):
            read_content(path, foreign=foreign)
    assert not any(hasattr(found, "marked") for found in (torch.UntypedStorage, torch.FloatStorage, torch.Tensor))
    assert not hasattr(torch.storage.TypedStorage, "marked")


def write_legacy(path: Path, pickled: bytes) -> None:
    """The older form of ``torch.save`` with this as its content."""
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(part, file, protocol=2)
        file.write(b"\x80\x02" + pickled)


def test_damaged_files_and_programs(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"w": torch.randn(1000)}, path)
    whole = path.read_bytes()
    unreadable, unknown = "cannot read weights", "is no checkpoint file"
    torch.save({"w": torch.randn(1000)}, path, _use_new_zipfile_serialization=False)
    older = path.read_bytes()
    for damaged, message in (
        (older[:300], unreadable),
        (whole[:500], unreadable),
        (pickle.dumps([1, 2]), "holds a list, not a state dict"),
        (pickle.dumps({"epoch": 3}), "holds no tensors under names"),
        (b"", "is empty"),
        (b"e\n", unknown),
        (b"hello world", unknown),
        (b"<html>sign in</html>", unknown),
    ):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=message) as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program/constants.pkl", b"")
        archive.writestr("program/data.pkl", pickle.dumps({}))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_content(path)
    with pytest.raises(InputError, match="no weights file"):
        read_content(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="is a folder, not a weights file"):
        read_content(tmp_path)


def test_somebody_elses_message_keeps_whole_sentences() -> None:
    long = "Loading failed. The reason is this. " + "And it goes on like that " * 10
    assert first_line(ValueError(long)) == "Loading failed. The reason is this."
    assert first_line(ValueError("word " * 50)) == "word " * 31 + "..."
    assert first_line(ValueError("x" * 200)) == "x" * 156 + " ..."
    assert first_line(KeyError(101)) == "no 101"
    assert first_line(ValueError()) == "ValueError"


def test_the_prefix_of_parallel_training_goes_only_as_a_whole() -> None:
    one = torch.ones(1)
    assert list(tensors_in({"module.a": one, "module.b": one})) == ["a", "b"]
    assert list(tensors_in({"module.a": one, "b": one})) == ["module.a", "b"]
    assert tensors_in([one]) == {}


def lying(storage: torch.UntypedStorage, *where: Any) -> Any:
    """Pickles as a tensor that lies where it is told in the data."""

    class Lying:
        def __reduce__(self) -> tuple[Any, ...]:
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, *where, False, OrderedDict())

    return Lying()


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_a_tensor_lies_within_its_data(as_zip: bool, tmp_path: Path) -> None:
    path, storage = tmp_path / "checkpoint.pth", torch.arange(6.0).untyped_storage()
    for where in ((0, (7,), (1,)), (5, (2,), (1,)), (0, (2, 2), (5, 1)), (0, (1 << 40,), (0,)), (0, (2,), (-1,))):
        torch.save({"w": lying(storage, *where)}, path, _use_new_zipfile_serialization=as_zip)
        with pytest.raises(WeightsError, match="is larger than its data"):
            read_tensors(path)
    torch.save({"w": lying(storage, 1, (2, 2), (0, 3))}, path, _use_new_zipfile_serialization=as_zip)
    assert read_tensors(path)["w"].tolist() == [[1, 4], [1, 4]]


def test_tensors_outlive_their_file(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"w": torch.ones(5000)}, path)
    found = read_tensors(path)["w"]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert bool((found == 1).all())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl", ".npy", ""])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pickle", "old pickle"])
def test_content_decides_and_not_the_name(kind: str, suffix: str, tmp_path: Path) -> None:
    path, state = tmp_path / f"weights{suffix}", {"module.w": torch.arange(6.0).reshape(2, 3)}
    if kind == "safetensors":
        path.write_bytes(save(state))
    elif "pickle" in kind:
        arrays = {name: value.numpy() for name, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "best": np.float32(1)}, protocol=0 if "old" in kind else 4))
    else:
        with path.open("wb") as file:
            torch.save({"model": state, "best": np.float64(1)}, file, _use_new_zipfile_serialization=kind == "zip")
    found = read_tensors(path)
    assert list(found) == ["w"]
    assert torch.equal(found["w"], state["module.w"])


def test_a_tar_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.tar"
    (tmp_path / "storages").write_bytes(b"x")
    name = b"\x80\x02\x8a\x0a" + torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")
    with tarfile.open(path, "w", encoding="latin1", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "storages", name.decode("latin1"))
    assert path.read_bytes().startswith(name)
    with pytest.raises(WeightsError, match="is a tar file"):
        read_tensors(path)
