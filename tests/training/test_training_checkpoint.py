"""Checkpoint folders: whole or not there, readable without pickles, and a clear word when they do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from regionvlp.errors import InputError, WeightsError
from regionvlp.store.files import temporary_path
from regionvlp.training import saving as checkpoint
from regionvlp.training.best import Best
from regionvlp.weights.modules import WEIGHTS, DamagedCheckpointError, load_weights, save_weights


class Tied(nn.Module):
    def __init__(self, width: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(5, width)
        self.head = nn.Linear(width, 5, bias=bias)
        self.head.weight = self.words.weight
        self.register_buffer("count", torch.tensor(7))


def test_weights_come_back_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    saved, loaded = Tied(), Tied()
    save_weights(saved, tmp_path)
    saved_count, loaded.count = saved.count, torch.tensor(0)
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded.words.weight, saved.words.weight)
    assert loaded.head.weight is loaded.words.weight
    assert torch.equal(loaded.count, saved_count)


def test_loading_keeps_the_dtype_of_the_module(tmp_path: Path) -> None:
    save_weights(nn.Linear(2, 2).half(), tmp_path)
    module = nn.Linear(2, 2)
    load_weights(module, tmp_path)
    assert module.weight.dtype == torch.float32


def test_another_architecture_is_told_by_its_tensors(tmp_path: Path) -> None:
    save_weights(Tied(width=4), tmp_path)
    other = nn.ModuleDict({"words": nn.Embedding(5, 3), "body": nn.Linear(2, 2)})
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(other, tmp_path)
    message = str(caught.value)
    assert "2 missing (body.weight, body.bias)" in message
    assert "2 unexpected (count, head.bias)" in message
    assert "1 of another shape (words.weight [5, 4] instead of [5, 3])" in message
    assert "\n" not in message
    assert not isinstance(caught.value, DamagedCheckpointError)
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("left", [0, 5, 60, -1, None])
def test_damaged_weights_are_an_error_of_one_line(tmp_path: Path, left: int | None) -> None:
    save_weights(Tied(), tmp_path)
    file = tmp_path / WEIGHTS
    if left is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(DamagedCheckpointError, match=WEIGHTS) as caught:
        load_weights(Tied(), tmp_path)
    assert "\n" not in str(caught.value)


STATE: dict[str, Any] = {"step": 3, "best": None, "random": [{"python": (3, (1, 2), None)}], "t": torch.ones(3)}


def save(run: Path, step: int) -> Path:
    return checkpoint.save(run, step, Tied(), STATE, lambda folder: None)


@pytest.mark.parametrize("left", [0, 5, 200, -30])
def test_a_damaged_state_is_an_error_of_one_line(tmp_path: Path, left: int) -> None:
    file = save(tmp_path, 3) / checkpoint.STATE
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(DamagedCheckpointError, match=checkpoint.STATE) as caught:
        checkpoint.load_state(file.parent)
    assert "\n" not in str(caught.value)


def test_a_state_that_hides_code_is_not_run(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    torch.save({"step": Path("/")}, folder / checkpoint.STATE)
    with pytest.raises(DamagedCheckpointError):
        checkpoint.load_state(folder)


def test_a_checkpoint_holds_what_it_should(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("train: {}\n")

    def tokenizer(folder: Path) -> None:
        (folder / "tokenizer.json").write_text("{}")

    folder = checkpoint.save(tmp_path, 1234, Tied(), STATE, tokenizer)
    assert folder == tmp_path / "checkpoints" / "step-00001234"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.safetensors", "trainer_state.pt", "config.yaml", "tokenizer.json", "files.json"}
    assert json.loads((folder / "files.json").read_text()).keys() == {"model.safetensors", "tokenizer.json"}
    assert (folder / "config.yaml").read_text() == "train: {}\n"
    state = checkpoint.load_state(folder)
    assert torch.equal(state.pop("t"), STATE["t"])
    assert state == {key: value for key, value in STATE.items() if key != "t"}


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def fails(folder: Path) -> None:
        (folder / "tokenizer.json").write_text("half")
        raise OSError("disk full")

    for step in (1, 2):
        with pytest.raises(InputError, match=r"cannot write the checkpoint .*: disk full"):
            checkpoint.save(tmp_path, step, Tied(), STATE, fails)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from torch import nn
from regionvlp.errors import InputError
from regionvlp.training import saving
run, size = Path(sys.argv[1]), int(sys.argv[2])
module = nn.Linear(64, 64)  # 16 kB
state = {"moments": torch.zeros(8000)}  # 32 kB
saving.save(run, 1, module, state)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    saving.save(run, 2, module, state)
except InputError as error:
    print(error.message)
    sys.exit(2)
"""


@pytest.mark.parametrize("size", [0, 100, 5_000, 20_000, 33_000])
def test_no_room_is_one_line_whoever_notices(tmp_path: Path, size: int) -> None:
    # A limit on the size of files stands for a full disk: the same calls fail, in safetensors as in torch.
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(size)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.startswith(f"cannot write the checkpoint {tmp_path}/checkpoints/step-00000002: ")
    assert len(done.stdout.splitlines()) == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    checkpoint.load_state(tmp_path / "checkpoints" / "step-00000001")


def test_a_checkpoint_without_its_trainers_state_can_be_opened_not_resumed(tmp_path: Path) -> None:
    path = save(tmp_path, 7)
    (path / "trainer_state.pt").unlink()
    assert checkpoint.find_checkpoint(tmp_path) == path
    with pytest.raises(InputError, match=r"trainer_state.pt is missing"):
        checkpoint.latest(tmp_path)


def test_the_newest_complete_checkpoint_is_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    for step in (5, 100_000_000, 20):
        save(tmp_path, step)
    (checkpoint.path_of(tmp_path, 200_000_000)).mkdir()
    temporary_path(checkpoint.path_of(tmp_path, 300_000_000)).mkdir()
    assert checkpoint.latest(tmp_path) == checkpoint.path_of(tmp_path, 100_000_000)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [100_000_000, 20, 5]
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.step_of(tmp_path / "step-7")


def test_what_a_dead_process_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    living = temporary_path(checkpoint.path_of(tmp_path, 9))
    dead = living.with_name(living.name.rsplit("-", 1)[0] + "-4194305.tmp")  # beyond the largest process id
    for folder in (living, dead):
        folder.mkdir(parents=True)
        (folder / WEIGHTS).write_bytes(b"half")
    save(tmp_path, 1)
    assert living.exists()
    assert not dead.exists()


def test_old_checkpoints_go_but_the_best_stays(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step)
    checkpoint.mark_best(tmp_path, Best(2, "t2v/R1", 31.5))
    checkpoint.prune(tmp_path, keep=2)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [5, 4, 2]
    assert checkpoint.best(tmp_path) == checkpoint.path_of(tmp_path, 2)
    pointer = json.loads((tmp_path / "checkpoints" / "best.json").read_text())
    assert pointer == {"checkpoint": "step-00000002", "step": 2, "metric": "t2v/R1", "value": 31.5}


def test_later_checkpoints_are_set_aside(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for _ in range(2):
        for step in (2, 3):
            save(tmp_path, step)
        checkpoint.set_aside_after(tmp_path, 1)
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [1]
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"step-00000001"} | {f"step-0000000{n}.set-aside{more}" for n in (2, 3) for more in ("", "-again")}


def with_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def half_copied(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def cut_short(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def altered(folder: Path) -> None:
    """As long as it was, as a copy that reserved its room and was then broken off."""
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (half_copied, r"tokenizer\.json is missing"),
        (cut_short, "1 bytes instead of 2"),
        (altered, "is not what was written"),
    ],
)
def test_a_copy_that_is_not_whole_is_told_by_its_list(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = checkpoint.save(tmp_path, 1, nn.Linear(3, 3), STATE, with_tokenizer)
    checkpoint.check_whole(folder)
    damage(folder)
    with pytest.raises(DamagedCheckpointError, match=words):
        checkpoint.check_whole(folder)


def test_a_checkpoint_without_a_list_passes(tmp_path: Path) -> None:
    folder = save(tmp_path, 1)
    (folder / checkpoint.FILES).unlink()
    checkpoint.check_whole(folder)


def test_a_state_with_a_flipped_bit_is_damaged(tmp_path: Path) -> None:
    """torch alone would load it."""
    file = save(tmp_path, 3) / checkpoint.STATE
    content = bytearray(file.read_bytes())
    content[content.index(torch.ones(3).numpy().tobytes()) + 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=checkpoint.STATE):
        checkpoint.load_state(file.parent)


def test_a_state_is_renewed_and_the_weights_stay(tmp_path: Path) -> None:
    folder = save(tmp_path, 3)
    before = (folder / WEIGHTS).stat().st_mtime_ns
    checkpoint.renew_state(tmp_path, 3, {"evaluated": 3})
    assert checkpoint.load_state(folder) == {"evaluated": 3}
    assert (folder / WEIGHTS).stat().st_mtime_ns == before
    checkpoint.check_whole(folder)


def test_another_checkpoint_of_the_same_step_is_set_aside(tmp_path: Path) -> None:
    first = (save(tmp_path, 3) / WEIGHTS).read_bytes()
    save(tmp_path, 3)
    assert (tmp_path / "checkpoints" / "step-00000003.set-aside" / WEIGHTS).read_bytes() == first
    assert [checkpoint.step_of(path) for path in checkpoint.checkpoints(tmp_path)] == [3]


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write the checkpoint .*: (Not a directory|File exists)"):
        save(tmp_path, 1)
