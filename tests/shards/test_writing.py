"""A shard exists whole or not at all: exceptions, full disks, killed processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import Failure, Manifest, Partial, ShardWriter, finished_shards, open_shards, verify
from regionvlp.shards.receipts import Receipt
from regionvlp.store.files import remove_leftovers, temporary_path

MakeVideo = Callable[..., VideoRegions]
WRITE_IN_CHILD = """
import os, resource, signal, sys
from pathlib import Path
import numpy as np
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, Receipt, ShardWriter

def video(n):
    f, r, c = 4, 5, 16
    return VideoRegions(f"{n}.mp4", np.arange(f), np.arange(f) / 2, np.ones((f, 2), np.int32),
        np.full((f, r, c), n, np.float16), np.zeros((f, r, 4), np.float32), np.zeros((f, r), np.float32),
        np.zeros((f, r), np.int32), np.zeros((f, r), np.int32), np.zeros((f, r), np.float32), np.full(f, r, np.int32))

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

folder = Path(sys.argv[1])
writer = ShardWriter(folder, 0, Manifest.read(folder))
"""


@pytest.fixture
def folder(tmp_path: Path, file_format: str, make_manifest: Callable[..., Manifest]) -> Path:
    Manifest.create_or_check(tmp_path / "set", make_manifest(format=file_format))
    return tmp_path / "set"


def run_child(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WRITE_IN_CHILD + code, str(folder)], capture_output=True, text=True)


def write_again(folder: Path, make_video: MakeVideo) -> None:
    """Writes shard 0 from anew and finds the folder whole."""
    with ShardWriter(folder, 0, Manifest.read(folder)) as writer:
        writer.add(make_video("again.mp4"))
        writer.finish()
    assert verify(folder) == []
    assert open_shards(folder).video_ids == ["again.mp4"]


def test_a_receipt_tells_what_was_written(folder: Path, make_video: MakeVideo) -> None:
    manifest = Manifest.read(folder)
    partial = [Partial("y.mp4", 100, 98, 1)]
    with ShardWriter(folder, 2, manifest) as writer:
        writer.add(make_video("x.mp4", counts=[5, 0, 2, 1]))
        writer.add(make_video("y.mp4", frames=1, counts=[3]))
        receipt = writer.finish(partial=partial, timings={"detect": 2.0})
    assert receipt == Receipt.read(folder / "shard-00002.json")
    assert (receipt.shard, receipt.videos, receipt.frames, receipt.regions) == (2, 2, 5, 11)
    assert (receipt.file, receipt.partial, receipt.detector) == (manifest.data_name(2), partial, manifest.detector)
    assert receipt.bytes == (folder / manifest.data_name(2)).stat().st_size
    assert receipt.created.endswith("+00:00")


def test_a_shard_in_which_every_video_failed(folder: Path) -> None:
    manifest = Manifest.read(folder)
    # Data that a run killed between data and receipt left behind.
    (folder / manifest.data_name(1)).write_bytes(b"old")
    failures = [Failure("x.mp4", "decode", "truncated", "VideoError", "ends early")]
    with ShardWriter(folder, 1, manifest) as writer:
        receipt = writer.finish(failures=failures)
    assert (receipt.file, receipt.bytes, receipt.sha256, receipt.videos) == (None, 0, None, 0)
    assert sorted(os.listdir(folder)) == ["manifest.json", "shard-00001.json"]
    assert verify(folder) == []
    assert open_shards(folder).failures == failures
    assert len(open_shards(folder)) == 0


def test_an_exception_leaves_nothing(folder: Path, make_video: MakeVideo) -> None:
    def fail() -> None:
        with ShardWriter(folder, 0, Manifest.read(folder)) as writer:
            writer.add(make_video("x.mp4"))
            assert len(os.listdir(folder)) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(folder) == ["manifest.json"]
    with ShardWriter(folder, 0, Manifest.read(folder)) as writer:
        writer.add(make_video("x.mp4"))
    assert os.listdir(folder) == ["manifest.json"]
    write_again(folder, make_video)


def test_videos_twice_and_shards_twice_are_refused(folder: Path, make_video: MakeVideo) -> None:
    manifest = Manifest.read(folder)
    failure = Failure("x.mp4", "write", "odd", "ShardError", "")
    with ShardWriter(folder, 0, manifest) as writer, ShardWriter(folder, 1, manifest) as other:
        writer.add(make_video("x.mp4"))
        with pytest.raises(ShardError, match=r"'x.mp4' was added to shard 0 twice"):
            writer.add(make_video("x.mp4"))
        with pytest.raises(ShardError, match="and reported as failed"):
            writer.finish(failures=[failure])
        writer.finish()
        other.add(make_video("y.mp4"))
        (folder / "shard-00001.json").touch()
        with pytest.raises(ShardError, match="shard 1 is done already"):
            other.finish()
        with pytest.raises(ShardError, match="shard 0 was finished"):
            writer.add(make_video("z.mp4"))
    (folder / "shard-00001.json").unlink()
    with pytest.raises(ShardError, match="shard 0 is done already"):
        ShardWriter(folder, 0, manifest)
    assert open_shards(folder).video_ids == ["x.mp4"]
    assert verify(folder) == []


@pytest.mark.parametrize("call", range(4))
def test_a_disk_that_refuses_to_flush_leaves_nothing(
    folder: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """The four flushes of a shard (data, folder, receipt, folder) fail one after the other."""
    flush, calls = os.fsync, iter(range(100))

    def refuse(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(descriptor)

    with ShardWriter(folder, 0, Manifest.read(folder)) as writer:
        writer.add(make_video("x.mp4"))
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(ShardError, match=r"cannot write shard 0 .* No space left on device") as caught:
            writer.finish()
    monkeypatch.undo()
    assert "finished shards are kept" in caught.value.hint
    assert os.listdir(folder) == ["manifest.json"]
    write_again(folder, make_video)


@pytest.mark.parametrize("kilobytes", [1, 4, 20, 60])
def test_a_file_that_cannot_grow_leaves_nothing(folder: Path, make_video: MakeVideo, kilobytes: int) -> None:
    """A limit on the size of files stands for the full disk: the kernel refuses in the middle of the library's work."""
    done = run_child(
        folder,
        f"""
from regionvlp.errors import ShardError
writer.add(video(0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({kilobytes * 1024}, resource.RLIM_INFINITY))
try:
    with writer:
        for n in range(1, 100):
            writer.add(video(n))
        writer.finish()
except ShardError as error:
    print(error, os.listdir(folder))
""",
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write shard 0" in done.stdout
    assert "['manifest.json']" in done.stdout
    write_again(folder, make_video)


@pytest.mark.parametrize("file_format", ["hdf5"], indirect=True)
@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()], ids=["I/O", "Ctrl-C"]
)
def test_hdf5_survives_a_write_that_fails(
    folder: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_: object) -> int:
        raise error

    with ShardWriter(folder, 0, Manifest.read(folder)) as writer:
        writer.add(make_video("x.mp4"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fail)
            with pytest.raises((ShardError, KeyboardInterrupt)) as caught:
                writer.add(make_video("y.mp4"))
        assert caught.value is error or caught.value.__cause__ is error
        # Had the writer begun a new file, this shard would lack x.mp4.
        with pytest.raises(ShardError, match="given up"):
            writer.add(make_video("z.mp4"))
        with pytest.raises(ShardError, match="given up"):
            writer.finish()
    assert os.listdir(folder) == ["manifest.json"]
    write_again(folder, make_video)


def test_killed_while_adding(folder: Path, make_video: MakeVideo) -> None:
    done = run_child(folder, "for n in range(9): writer.add(video(n))\ndie()")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert finished_shards(folder) == []
    assert len(open_shards(folder)) == 0
    (fault,) = verify(folder)
    assert "left by a process" in fault.message
    assert fault.file.startswith("shard-00000.")
    write_again(folder, make_video)


@pytest.mark.parametrize(
    "moment",
    [
        "os.fsync = die",
        "os.link = die",
        "Receipt.write_first = die",
        "keep = os.link\nos.link = lambda a, b: die() if str(b).endswith('.json') else keep(a, b)",
    ],
    ids=["before flushing", "before the name", "before the receipt", "before the receipt has its name"],
)
def test_killed_while_finishing(folder: Path, make_video: MakeVideo, moment: str) -> None:
    done = run_child(folder, f"writer.add(video(0))\n{moment}\nwriter.finish()")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert finished_shards(folder) == []
    assert len(open_shards(folder)) == 0
    assert verify(folder) != []
    write_again(folder, make_video)


def test_leftovers_of_the_living_and_of_other_machines_stay(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    mine = temporary_path(tmp_path / "shard-00000.h5")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}s", f"-{child.pid}s"))
    elsewhere = tmp_path / f"shard-00000.h5.another-host-{child.pid}.tmp"
    stranger = tmp_path / "notes.tmp"
    for path in (mine, dead, elsewhere, stranger):
        path.touch()
    assert remove_leftovers(tmp_path, "shard-00001.h5") == []
    assert remove_leftovers(tmp_path, "shard-00000.h5") == [dead]
    assert sorted(tmp_path.iterdir()) == sorted([mine, elsewhere, stranger])
