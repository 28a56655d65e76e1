"""The launchers: whatever runs the workers, and whoever of them dies, the folder ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regionvlp.config import load_config
from regionvlp.errors import ConfigError, InputError, ShardError
from regionvlp.extract.launch.launch import Outcome, extract_folder
from regionvlp.extract.launch.processes import run_processes
from regionvlp.extract.launch.reports import Reports
from regionvlp.extract.launch.stopping import Stop
from regionvlp.extract.run import session
from regionvlp.extract.run.job import Job, parse_task
from regionvlp.extract.run.session import Session
from regionvlp.extract.run.status import folder_status
from regionvlp.extract.settings import ExtractConfig, ShardSettings
from regionvlp.extract.sources import Source, open_source
from regionvlp.shards import Receipt, ShardDoneError, open_shards, read_plan, read_receipts, verify

HERE = Path(__file__).resolve().parents[2]


def settings(factory: str = "pixel_sums", **sections: dict[str, object]) -> ExtractConfig:
    base = {
        "detector": {"factory": f"fake_detectors:{factory}"},
        "video": {"frames": 2, "workers": 1},
        "shards": {"size": 2},
        "run": {"card": False},
    }
    return load_config(ExtractConfig, base, sections)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Nine pictures and one file that is none: five shards of two."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(9):
        draw(folder / f"{i}.png", i)
    (folder / "bad.mp4").write_bytes(b"<html>404 not found</html>")
    return folder


def draw(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 250, (12, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def contents(folder: Path) -> dict[str, Any]:
    """Every file; receipts without what differs from run to run."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        if path.suffix == ".json":
            values = json.loads(path.read_bytes())
            found[path.name] = {k: v for k, v in values.items() if k not in ("created", "timings", "digest")}
        else:
            found[path.name] = path.is_dir() or path.read_bytes()
    return found


@pytest.fixture
def undisturbed(videos: Path, tmp_path: Path) -> dict[str, Any]:
    extract_folder(videos, tmp_path / "undisturbed", settings())
    return contents(tmp_path / "undisturbed")


def test_processes_do_what_one_does(videos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    planned, seen = [], []
    out = tmp_path / "out"
    outcome = extract_folder(
        videos, out, settings(run={"processes": 2}), on_plan=lambda *p: planned.append(p), on_video=seen.append
    )
    assert planned == [(10, 10)]
    assert sorted(seen) == [0, *[1] * 9]
    assert (outcome.new_videos, outcome.new_frames, outcome.left) == (10, 9, [])
    assert contents(out) == undisturbed
    assert extract_folder(videos, out, settings(run={"processes": 2})).new_videos == 0


def test_a_users_mistake_in_a_process_is_the_same_error(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    extract_folder(videos, out, settings())
    before = contents(out)
    with pytest.raises(ShardError, match=r"video\.max_seconds"):
        extract_folder(videos, out, settings(run={"processes": 2}, video={"max_seconds": 3.0}))
    assert contents(out) == before
    with pytest.raises(ConfigError, match="no_such_factory"):
        extract_folder(videos, tmp_path / "other", settings("no_such_factory", run={"processes": 2}))
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced(
    videos: Path, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_ONCE", str(tmp_path / "died"))
    Image.new("RGB", (14, 12), "white").save(videos / "4.png")
    notes: list[str] = []
    out = tmp_path / "out"
    outcome = extract_folder(videos, out, settings("suicidal", run={"processes": 1}), on_note=notes.append)
    assert (tmp_path / "died").exists()
    assert [note for note in notes if "died on shard 2" in note]
    assert outcome.left == []
    assert contents(out).keys() == undisturbed.keys()
    assert verify(out) == []


def test_a_shard_that_kills_its_workers_is_left(videos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (14, 12), "white").save(videos / "4.png")
    notes: list[str] = []
    out = tmp_path / "out"
    outcome = extract_folder(videos, out, settings("suicidal", run={"processes": 2}), on_note=notes.append)
    assert outcome.left == [2]
    assert [note for note in notes if "shard 2 is left undone" in note]
    assert (outcome.status.shards_done, outcome.status.left) == (4, 2)
    assert [path.name for path in out.iterdir() if ".tmp" in path.name or path.name == ".claims"] == []
    draw(videos / "4.png", 4)  # mended
    assert extract_folder(videos, out, settings("suicidal")).status.left == 0


def test_slots_of_an_array(videos: Path, tmp_path: Path, undisturbed: dict[str, Any]) -> None:
    out = tmp_path / "out"
    last = extract_folder(videos, out, settings(), task=parse_task("2/3"))
    assert [receipt.shard for receipt in read_receipts(out)] == [2]
    assert (last.new_videos, last.status.left) == (2, 8)
    extract_folder(videos, out, settings(), task=parse_task("1/3"))
    extract_folder(videos, out, settings(), task=parse_task("2/3"))  # any may be run again
    extract_folder(videos, out, settings(), task=parse_task("3/3"))
    assert contents(out) == undisturbed


def test_slots_but_the_first_list_no_videos(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    extract_folder(videos, out, settings(), task=(0, 3))
    monkeypatch.setattr(Source, "scan", lambda source: pytest.fail("millions of videos were listed"))
    assert extract_folder(videos, out, settings(), task=(1, 3)).status.left == 2
    before = contents(out)
    videos.rename(tmp_path / "not mounted")
    with pytest.raises(InputError, match="none of the 10 planned videos"):
        extract_folder(videos, out, settings(), task=(2, 3))
    assert contents(out) == before, "a folder that is not there must not make every video a failure"


def test_processes_plan_what_their_parent_listed(videos: Path, tmp_path: Path) -> None:
    source, out = open_source(videos), tmp_path / "out"
    tally, left = run_processes(Job(source, out, settings()), source.scan().slice(0, 4), ["cpu"], Stop(), Reports())
    assert (tally.videos, left) == (4, [])
    plan = read_plan(out)
    assert plan is not None
    assert [row.video_id for row in plan] == ["0.png", "1.png", "2.png", "3.png"]


def test_every_end_of_a_shard_is_told(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over(*args: object, **options: object) -> None:
        raise ShardDoneError("somebody else was faster", "")

    monkeypatch.setattr(session, "process_shard", taken_over)
    seen: list[int | None] = []
    with Session(Job(open_source(videos), tmp_path / "out", settings())) as worker:
        worker.prepare()
        worker.run(Stop(), on_shard=seen.append)
    assert seen == [0, None, 1, None, 2, None, 3, None, 4, None], "a death would be blamed on the last one"


@pytest.mark.parametrize("text", ["", "1", "a/b", "4/3", "1/0", "-1/2", "1/2/3"])
def test_slots_that_there_cannot_be(text: str) -> None:
    with pytest.raises(InputError, match="--task"):
        parse_task(text)


def test_workers_begin_apart_and_cover_all(videos: Path, tmp_path: Path) -> None:
    jobs = [Job(open_source(videos), tmp_path, settings(), start=(i, 3)) for i in range(3)]
    orders = [job.in_order(list(range(10))) for job in jobs]
    assert [order[0] for order in orders] == [0, 3, 6]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert Job.from_dict(json.loads(json.dumps(jobs[1].to_dict()))) == jobs[1]


def test_two_commands_on_one_folder_share_the_work(
    videos: Path, tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NAP", "0.02")
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(extract_folder(videos, tmp_path / "out", settings())))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.status.left for outcome in outcomes] == [0, 0, 0]
    assert sum(outcome.new_videos for outcome in outcomes) == 10
    assert contents(tmp_path / "out") == undisturbed


class Command:
    """The real command, in a group of processes of its own."""

    def __init__(self, videos: Path, out: Path, nap: float, *options: str) -> None:
        self.out = out
        arguments = ["extract", "--videos", str(videos), "--out", str(out), "--frames", "2", "--shard-size", "2"]
        arguments += ["--set", "detector.factory=fake_detectors:pixel_sums", "--set", "video.workers=1", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "regionvlp", *arguments],
            env={**os.environ, "PYTHONPATH": str(HERE), "FAKE_NAP": str(nap)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait_for(self, about: str, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not met():
            assert self.process.poll() is None, f"it ended before {about}: {self.process.communicate()[0]}"
            assert time.monotonic() < deadline, f"it takes too long until {about}"
            time.sleep(0.01)

    def at_work(self) -> bool:
        """Whether one shard is done, and another begun."""
        return bool(list(self.out.glob("shard-*.json"))) and bool(self.begun())

    def begun(self) -> set[str]:
        """The shards at hand."""
        claimed = {path.stem for path in self.out.glob(".claims/shard-*.json")}
        return {name for name in claimed if not (self.out / f"{name}.json").exists()}

    def ended(self, within: float) -> tuple[int, str]:
        """Exit code and what it said; nothing of it may run any more."""
        said, _ = self.process.communicate(timeout=within)
        deadline = time.monotonic() + 20
        while self.alive():
            assert time.monotonic() < deadline, "a process was left behind"
            time.sleep(0.02)
        return self.process.returncode, said

    def alive(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@pytest.fixture
def start(videos: Path, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    commands: list[Command] = []

    def begin(nap: float, *options: str) -> Command:
        commands.append(Command(videos, tmp_path / "out", nap, *options))
        return commands[-1]

    yield begin
    for command in commands:
        if command.alive():
            os.killpg(command.process.pid, signal.SIGKILL)
        command.process.wait()


def resumable(out: Path, videos: Path, undisturbed: dict[str, Any]) -> None:
    """Nothing lies around, and the next run ends as if nothing had been."""
    assert [path.name for path in out.iterdir() if path.name.startswith(".") or ".tmp" in path.name] == []
    assert folder_status(out).left > 0
    extract_folder(videos, out, settings())
    assert contents(out) == undisturbed


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        ((), [signal.SIGTERM]),
        (("--processes", "2"), [signal.SIGINT, signal.SIGINT]),
        pytest.param((), [signal.SIGINT, signal.SIGINT], marks=pytest.mark.slow),
        pytest.param(("--processes", "2"), [signal.SIGTERM], marks=pytest.mark.slow),
    ],
    ids=["TERM", "processes, Ctrl-C twice", "Ctrl-C twice", "processes, TERM"],
)
def test_dropped_at_once(
    start: Callable[..., Command],
    videos: Path,
    undisturbed: dict[str, Any],
    options: tuple[str, ...],
    signals: list[signal.Signals],
) -> None:
    command = start(1.0, "--set", "run.card=false", *options)
    command.wait_for("a shard is done and another begun", command.at_work)
    for number in signals:
        if number == signal.SIGINT:  # as from a terminal, to all of them
            os.killpg(command.process.pid, number)
        else:
            command.process.send_signal(number)
        time.sleep(0.3)
    code, said = command.ended(within=30)
    assert code == 130, said
    assert "run the same command again" in said
    assert "finishing" in said or signal.SIGINT not in signals
    resumable(command.out, videos, undisturbed)


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--processes", "2"), marks=pytest.mark.slow)], ids=["in-process", "processes"]
)
def test_ctrl_c_once_finishes_the_shards_at_hand(
    start: Callable[..., Command], videos: Path, undisturbed: dict[str, Any], options: tuple[str, ...]
) -> None:
    command = start(0.3, "--set", "run.card=false", *options)
    command.wait_for("a shard is done and another begun", command.at_work)
    begun = command.begun()
    os.killpg(command.process.pid, signal.SIGINT)
    code, said = command.ended(within=60)
    assert code == 130, said
    assert "Ctrl-C again to stop at once" in said
    assert begun <= {path.stem for path in command.out.glob("shard-*.json")}
    resumable(command.out, videos, undisturbed)


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(
    start: Callable[..., Command], videos: Path, undisturbed: dict[str, Any]
) -> None:
    command = start(0.3, "--set", "run.card=false", "--processes", "2")
    command.wait_for("a shard is done and another begun", command.at_work)
    command.process.kill()
    command.ended(within=60)
    resumable(command.out, videos, undisturbed)


def test_what_a_killed_run_of_another_machine_left_is_taken_over(
    videos: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    """Its claim is silent; its unfinished file and its published data without a receipt are of other content."""
    out = tmp_path / "out"
    extract_folder(videos, out, settings(), task=(1, 5))
    (out / ".claims").mkdir()
    claim = {"token": "x", "process": "elsewhere_123456-1s5", "worker": "w", "run": "r", "since": 1.0}
    progress = {"videos": 1, "of_videos": 2, "frames": 1, "videos_per_second": 1.0, "frames_per_second": 1.0}
    for number in (0, 3):
        path = out / ".claims" / f"shard-0000{number}.json"
        path.write_text(json.dumps({**claim, **progress}))
        os.utime(path, (time.time() - 400,) * 2)
    (out / "shard-00000.h5.elsewhere_123456-1s5n0.tmp").write_bytes(b"half")
    (out / "shard-00003.h5").write_bytes(b"other data")
    extract_folder(videos, out, settings())
    assert verify(out) == []
    found = contents(out)
    receipt = Receipt.read(out / "shard-00003.json")
    assert receipt.file is not None
    assert receipt.file != "shard-00003.h5"  # the name was taken, and might have been its owner's yet
    found["shard-00003.h5"] = found.pop(receipt.file)
    found["shard-00003.json"]["file"] = "shard-00003.h5"
    assert found == undisturbed
    assert len(open_shards(out)) == 9


def test_open_shards_of_other_slots_are_told(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert extract_folder(videos, out, settings(), task=(0, 3)).open_slots == {1: 2, 2: 1}
    assert extract_folder(videos, out, settings(), task=(2, 3)).open_slots == {1: 2}
    assert extract_folder(videos, out, settings(), task=(1, 3)).open_slots == {}
    assert extract_folder(videos, out, settings()).open_slots == {}


def test_without_a_size_every_worker_has_shards(videos: Path, tmp_path: Path) -> None:
    free = settings().model_copy(update={"shards": ShardSettings()})
    extract_folder(videos, tmp_path / "one", free)
    assert len(read_plan(tmp_path / "one").shards()) == 1  # type: ignore[union-attr]
    two = free.model_copy(update={"run": settings(run={"processes": 2}).run})
    extract_folder(videos, tmp_path / "two", two)
    assert len(read_plan(tmp_path / "two").shards()) == 3  # type: ignore[union-attr]
    extract_folder(videos, tmp_path / "slots", free, task=(0, 4))
    assert len(read_plan(tmp_path / "slots").shards()) == 5  # type: ignore[union-attr]
    notes: list[str] = []
    (tmp_path / "one/shard-00000.json").unlink()
    extract_folder(videos, tmp_path / "one", two, on_note=notes.append)
    assert notes == [
        "1 shards for 2 workers: 1 of them have nothing to do (a new --out is planned for as many as there are)"
    ]
