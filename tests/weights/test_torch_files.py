"""Files of other projects' trainers: what is in them comes out, and nothing in them happens."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from regionvlp.errors import InputError, WeightsError, first_line
from regionvlp.weights.torch_files import Inert, read_torch_file, state_dict_of


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
    found = read_torch_file(path)
    assert found["epoch"] == 3
    assert found["lr"][0][0] == 1e-5
    tensors = state_dict_of(found)
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
    assert torch.equal(state_dict_of(read_torch_file(path))["w"], torch.ones(2))
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
    with pytest.raises(WeightsError, match="cannot read weights"):
        read_torch_file(path)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == defaults


@pytest.mark.parametrize("name", ["UntypedStorage", "FloatStorage", "storage TypedStorage", "Tensor"])
def test_a_class_cannot_be_changed(name: str, tmp_path: Path) -> None:
    module, _, kind = f"torch {name}".replace("torch storage ", "torch.storage ").rpartition(" ")
    path = tmp_path / "checkpoint.pth"
    write_legacy(path, f"c{module}\n{kind}\n".encode() + b"N}X\x06\x00\x00\x00markedK\x01s\x86b.")
    with contextlib.suppress(WeightsError):
        read_torch_file(path)
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
        (pickle.dumps([1, 2]), "a pickle that torch.save did not write"),
        (b"", "is empty"),
        (b"e\n", unknown),
        (b"hello world", unknown),
        (b"<html>sign in</html>", unknown),
    ):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=message) as caught:
            read_torch_file(path)
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("program/constants.pkl", b"")
        archive.writestr("program/data.pkl", pickle.dumps({}))
    with pytest.raises(WeightsError, match="TorchScript"):
        read_torch_file(path)
    with pytest.raises(InputError, match="no weights file"):
        read_torch_file(tmp_path / "nowhere.pth")
    with pytest.raises(InputError, match="is a folder, not a weights file"):
        read_torch_file(tmp_path)


def test_somebody_elses_message_keeps_whole_sentences() -> None:
    long = "Loading failed. The reason is this. " + "And it goes on like that " * 10
    assert first_line(ValueError(long)) == "Loading failed. The reason is this."
    assert first_line(ValueError("word " * 50)) == "word " * 31 + "..."
    assert first_line(ValueError("x" * 200)) == "x" * 156 + " ..."
    assert first_line(KeyError(101)) == "no 101"
    assert first_line(ValueError()) == "ValueError"


def test_the_prefix_of_parallel_training_goes_only_as_a_whole() -> None:
    one = torch.ones(1)
    assert list(state_dict_of({"module.a": one, "module.b": one})) == ["a", "b"]
    assert list(state_dict_of({"module.a": one, "b": one})) == ["module.a", "b"]
    assert state_dict_of([one]) == {}
