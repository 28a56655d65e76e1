"""Run folders and logs: what a run says about itself, and what happens in a folder that is another's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import MAY_DIFFER

from regionvlp.errors import InputError, RegionVLPError
from regionvlp.training import saving as checkpoint
from regionvlp.training.logbook import LOG, Logbook, read_log
from regionvlp.training.run_folder import RunLock, first_difference, open_run

CONFIG = "optim:\n  lr: 0.1\ntrain:\n  batch_size: 8\n  workers: 2\n"


def fake_checkpoint(run: Path, step: int) -> Path:
    path = checkpoint.path_of(run, step)
    path.mkdir(parents=True)
    for name in ("model.safetensors", checkpoint.STATE):
        (path / name).write_bytes(b"")
    (path / "config.yaml").write_text(CONFIG)
    return path


def test_a_run_folder_explains_itself(tmp_path: Path) -> None:
    run = tmp_path / "deep" / "run"
    assert open_run(run, CONFIG, "never", seed=5).candidates == ()
    assert (run / "config.yaml").read_text() == CONFIG
    record = json.loads((run / "run.json").read_text())
    assert record["seed"] == 5
    assert len(record["starts"]) == 1
    assert {"regionvlp", "python", "torch"} <= record["starts"][0]["versions"].keys()
    assert "pytest" in record["starts"][0]["command"]

    open_run(run, CONFIG, "auto", seed=5)
    again = json.loads((run / "run.json").read_text())
    assert again["created"] == record["created"]
    assert again["starts"][0] == record["starts"][0]
    assert len(again["starts"]) == 2


def test_where_a_run_goes_on(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    open_run(run, CONFIG)
    ten, twenty = fake_checkpoint(run, 10), fake_checkpoint(run, 20)
    assert open_run(run, CONFIG, "auto").candidates == (twenty, ten)
    assert open_run(run, CONFIG, ten).candidates == (ten,)
    assert open_run(other, CONFIG, run).candidates == (twenty,)


def test_a_change_that_does_not_matter_is_written_down(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG)
    more = CONFIG.replace("workers: 2", "workers: 4")
    open_run(tmp_path, more, may_differ=MAY_DIFFER)
    assert (tmp_path / "config.yaml").read_text() == more


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_another_runs_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_run(tmp_path / "run", CONFIG)
    other = CONFIG.replace("lr: 0.1", "lr: 0.2").replace("workers: 2", "workers: 4")
    checkpoint_of_it = fake_checkpoint(tmp_path / "run", 3)
    before = contents(tmp_path)
    with pytest.raises(RegionVLPError, match=r"another run: optim\.lr is 0\.1 there and 0\.2 here") as caught:
        open_run(tmp_path / "run", other)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match="holds a run already"):
        open_run(tmp_path / "run", CONFIG, "never")
    with pytest.raises(InputError, match=r"optim\.lr"):
        open_run(tmp_path / "new", other, checkpoint_of_it)
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_run_without_a_checkpoint_blocks_nothing(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG)
    open_run(tmp_path, CONFIG.replace("lr: 0.1", "lr: 0.2"))
    assert "lr: 0.2" in (tmp_path / "config.yaml").read_text()


def test_one_process_at_a_time_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from regionvlp.training.run_folder import RunLock\n"
        "with RunLock(Path(sys.argv[1])) as lock:\n    lock.take(); print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with RunLock(tmp_path / "run") as lock, pytest.raises(InputError, match=f"being trained by process {other.pid} on"):
        lock.take()
    other.kill()
    other.wait()
    with RunLock(tmp_path / "run") as lock:
        lock.take()
        open_run(tmp_path / "run", CONFIG)
    with RunLock(tmp_path / "run") as lock:
        lock.take()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes that inherit files")
def test_a_forked_loader_holds_no_lock(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with RunLock(tmp_path) as lock:
        lock.take()
        child = os.fork()
        if not child:
            os.write(writing, b"here")
            time.sleep(60)
            os._exit(0)
        assert os.read(reading, 4) == b"here"
    try:
        with RunLock(tmp_path) as lock:
            lock.take()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_lists_of_sections_are_compared_item_by_item() -> None:
    old = {"data": {"sources": [{"captions": "a", "frames": 1}, {"captions": "b", "frames": 2}]}}
    new = {"data": {"sources": [{"captions": "c", "frames": 1}, {"captions": "b", "frames": 4}]}}
    assert first_difference(old, new) == ("data.sources.0.captions", "a", "c")
    assert first_difference(old, new, {"data.sources.*.captions"}) == ("data.sources.1.frames", 2, 4)


def test_a_path_that_cannot_be_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds cat\.jpg"):
        open_run(tmp_path / "photos", CONFIG)
    with pytest.raises(InputError, match="is a file"):
        open_run(tmp_path / "file", CONFIG)
    for resume, words in (("nowhere", "no checkpoint"), ("photos", "is no checkpoint to resume from")):
        with pytest.raises(InputError, match=words):
            open_run(tmp_path / "empty", CONFIG, tmp_path / resume)
    open_run(tmp_path / "fresh", CONFIG)
    (tmp_path / "fresh" / "checkpoints").mkdir()
    with pytest.raises(InputError, match="no complete checkpoint"):
        open_run(tmp_path / "empty", CONFIG, tmp_path / "fresh")
    assert contents(tmp_path / "empty") == {}
    assert contents(tmp_path / "photos") == {"cat.jpg": b"x"}


def test_a_start_that_was_killed_before_its_config_was_written_can_be_repeated(tmp_path: Path) -> None:
    open_run(tmp_path, CONFIG)
    (tmp_path / "config.yaml").unlink()
    assert open_run(tmp_path, CONFIG, "never").path == tmp_path


def test_the_first_difference_is_by_dotted_key() -> None:
    old, new = {"a": {"b": 1, "c": {}}, "d": [1]}, {"a": {"b": 1, "c": {"e": 2}}, "d": [1, 2]}
    assert first_difference(old, old) is None
    assert first_difference(old, new) == ("a.c.e", None, 2)
    assert first_difference(old, new, {"a"}) == ("d", [1], [1, 2])
    assert first_difference(old, {"a": {"b": 1, "c": {}}}) == ("d", [1], None)
    assert first_difference({"a": 1}, {"a": 2}, {"a"}) is None


def test_a_resumed_log_has_no_line_twice(tmp_path: Path) -> None:
    log = Logbook(tmp_path, tensorboard=False)
    log.rewind(0)
    for step in range(1, 6):
        log.write(step, {"loss": step / 2})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 6, "lo')
    log.rewind(3)
    log.write(4, {"loss": 9.0, "bad": float("nan")})
    log.close()
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1] == {"step": 4, "loss": 9.0, "bad": None}
    assert read_log(tmp_path / LOG) == lines


def test_a_line_is_readable_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = Logbook(tmp_path, tensorboard=False)
    log.rewind(0)
    log.write(1, {"loss": 0.5})
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.5}]
    log.close()


def test_a_damaged_log_is_an_error_and_a_half_line_is_not(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_log(tmp_path) == [{"step": 1}, {"step": 2}]
    (tmp_path / LOG).write_text('{"step": 1}\n[]\n{"step": 3}\n')
    with pytest.raises(InputError, match="line 2"):
        read_log(tmp_path)
    with pytest.raises(InputError, match="cannot read"):
        read_log(tmp_path / "nowhere")


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = Logbook(tmp_path)
    log.rewind(0)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    log.rewind(1)
    log.write(2, {"loss": 20.0})
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 20.0)]
