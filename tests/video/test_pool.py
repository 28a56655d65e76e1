"""The pool of decoding processes: right frames, and survival of hangs, crashes and memory bombs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from pathlib import Path

import numpy as np
import pytest

from regionvlp.errors import InputError, RegionVLPError, VideoError
from regionvlp.video import DecodedVideo, DecodePool, read_frames
from regionvlp.video.child import cpu_seconds, too_slow

from .clips import make_clip, numbers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these tests look into /proc")
LONG = 60.0


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", 30)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A video that hangs whoever opens it."""
    os.mkfifo(tmp_path / "hangs.mp4")
    return tmp_path / "hangs.mp4"


def failure(future: Future[DecodedVideo]) -> VideoError:
    error = future.exception(LONG)
    assert isinstance(error, VideoError)
    return error


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_pool_returns_what_the_reader_returns(clip: Path) -> None:
    truth = read_frames(clip, 8)
    with DecodePool(2) as pool:
        for future in [pool.submit(clip, 8) for _ in range(6)]:
            video = future.result(LONG)
            assert numbers(video.frames) == truth.frame_index.tolist()
            assert np.array_equal(video.frames[3], truth.frames[3])
            assert np.array_equal(video.frame_time, truth.frame_time)
            assert video.frame_index.dtype == np.int64
            assert (video.frames_decoded, video.packets_skipped, video.reader) == (30, 0, "pyav")
            assert video.frames[0].flags.writeable
        assert len(pool.child_pids()) <= 2


def test_errors_cross_the_pipe_whole(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video" * 50)
    with DecodePool(1) as pool:
        error = failure(pool.submit(tmp_path / "text.mp4", 8))
        assert (error.stage, error.reason, error.transient) == ("open", "not-a-video", False)
        assert "moov atom not found" in error.message  # FFmpeg's own words
        (pid,) = pool.child_pids()
        assert pool.submit(clip, 8).result(LONG)
        assert pool.child_pids() == [pid]


def test_a_hanging_video_is_a_timeout_and_the_next_one_is_read(clip: Path, pipe: Path) -> None:
    with DecodePool(1, time_limit=1.0) as pool:
        assert pool.submit(clip, 8).result(LONG)
        (pid,) = pool.child_pids()
        error = failure(pool.submit(pipe, 8))
        assert (error.reason, error.transient) == ("timeout", True)
        assert "longer than 1 s" in error.message
        assert pool.submit(clip, 8).result(LONG)
        assert pool.child_pids() != [pid]
        wait_for(lambda: not is_alive(pid))


def test_a_file_that_takes_its_time_in_work_is_not_tried_again() -> None:
    at_work, waiting = too_slow(Path("a.ts"), 10.0, 9.5), too_slow(Path("a.ts"), 10.0, 0.2)
    assert (at_work.transient, waiting.transient) == (False, True)
    assert "video.time_limit" in at_work.message
    before = cpu_seconds(os.getpid())
    deadline = time.monotonic() + LONG
    while (worked := cpu_seconds(os.getpid()) - before) < 0.05:
        assert time.monotonic() < deadline
    assert worked < LONG
    assert cpu_seconds(2**30) == 0.0


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_names_its_signal_and_the_next_video_is_read(clip: Path, pipe: Path, sent: signal.Signals) -> None:
    with DecodePool(1, time_limit=LONG) as pool:
        assert pool.submit(clip, 8).result(LONG)
        (pid,) = pool.child_pids()
        hanging = pool.submit(pipe, 8)
        wait_for(hanging.running)
        os.kill(pid, sent)
        error = failure(hanging)
        assert (error.reason, error.transient) == ("decoder-crashed", True)
        assert sent.name in error.message
        assert numbers(pool.submit(clip, 4).result(LONG).frames) == [3, 10, 18, 25]


def test_ctrl_c_does_not_reach_the_children(clip: Path) -> None:
    with DecodePool(1) as pool:
        assert pool.submit(clip, 8).result(LONG)
        (pid,) = pool.child_pids()
        os.kill(pid, signal.SIGINT)
        assert pool.submit(clip, 8).result(LONG)
        assert pool.child_pids() == [pid]


def test_too_much_memory_is_a_failure_of_that_video_only(tmp_path: Path, clip: Path) -> None:
    huge = make_clip(tmp_path / "huge.mkv", 2, codec="ffv1", side=2048)
    with DecodePool(1, memory_limit_mb=15) as pool:
        assert pool.submit(clip, 8).result(LONG)
        error = failure(pool.submit(huge, 2))
        assert error.reason == "out-of-memory"
        assert pool.submit(clip, 8).result(LONG)
    with DecodePool(1, memory_limit_mb=None) as pool:
        assert len(pool.submit(huge, 2).result(LONG).frames) == 2


def test_children_are_replaced_after_their_share(clip: Path) -> None:
    with DecodePool(1, recycle_after=2) as pool:
        pids = []
        for _ in range(4):
            assert pool.submit(clip, 2).result(LONG)
            pids += pool.child_pids()
        assert len(set(pids)) >= 2


def test_the_first_seconds_and_the_reader_reach_the_children(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 100)
    with DecodePool(1, max_seconds=2.0, reader="pyav") as pool:
        assert pool.submit(path, 4).result(LONG).frame_index.tolist() == [5, 18, 30, 43]


def test_close_ends_everything_and_may_be_repeated(clip: Path, pipe: Path) -> None:
    pool = DecodePool(1, time_limit=LONG)
    assert pool.submit(clip, 8).result(LONG)
    (pid,) = pool.child_pids()
    hanging, queued = pool.submit(pipe, 8), pool.submit(clip, 8)
    wait_for(hanging.running)
    pool.close()
    pool.close()
    assert queued.cancelled()
    assert isinstance(hanging.exception(LONG), CancelledError)
    assert pool.child_pids() == []
    assert not is_alive(pid)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(clip, 8)


def test_a_queued_video_can_be_cancelled(clip: Path, pipe: Path) -> None:
    with DecodePool(1, time_limit=1.0) as pool:
        hanging, queued, last = pool.submit(pipe, 8), pool.submit(clip, 8), pool.submit(clip, 8)
        assert queued.cancel()
        assert failure(hanging).reason == "timeout"
        assert last.result(LONG)


def test_a_waiting_pool_holds_no_video(clip: Path) -> None:
    with DecodePool(1) as pool:
        picture = weakref.ref(pool.submit(clip, 8).result(LONG).frames[0])
        wait_for(lambda: picture() is None)


def test_a_forked_copy_leaves_the_children_alone(clip: Path) -> None:
    with DecodePool(1) as pool:
        assert pool.submit(clip, 8).result(LONG)
        (pid,) = pool.child_pids()
        fork = os.fork()
        if fork == 0:
            pool.close()
            os._exit(0)
        os.waitpid(fork, 0)
        assert is_alive(pid)
        assert pool.submit(clip, 8).result(LONG)


def test_wrong_settings_are_refused_at_once() -> None:
    with pytest.raises(InputError, match="no reader"):
        DecodePool(1, reader="vlc")
    for wrong in ({"workers": 0}, {"time_limit": 0.0}, {"recycle_after": 0}):
        with pytest.raises(ValueError, match="positive"):
            DecodePool(**wrong)
    with DecodePool() as pool:
        assert pool.workers == len(os.sched_getaffinity(0))


def test_a_child_that_cannot_start_is_no_fault_of_the_video(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regionvlp.video.child._BOOT", "import no_such_module_anywhere")
    with DecodePool(1) as pool:
        error = pool.submit(clip, 8).exception(LONG)
    assert type(error) is RegionVLPError
    assert "no_such_module_anywhere" in str(error)


def test_a_reader_that_cannot_be_loaded_is_the_users_to_mend(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchcodec.py").write_text("raise OSError('libavutil.so.60: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    with DecodePool(1, reader="torchcodec") as pool:
        error = pool.submit(clip, 8).exception(LONG)
    assert isinstance(error, InputError)
    assert "libavutil.so.60" in error.message
    assert "--decoder pyav" in error.hint


SCRIPT = """
import json, sys, threading
from pathlib import Path
from regionvlp.video import DecodePool
pool = DecodePool(1, time_limit=600)
video = pool.submit(Path(sys.argv[1]), 2).result()
light = not ({"torch", "av"} & set(sys.modules))
print(json.dumps({"pids": pool.child_pids(), "index": video.frame_index.tolist(), "light": light}), flush=True)
if len(sys.argv) > 2:
    pool.submit(Path(sys.argv[2]), 2)
    threading.Event().wait()
"""


def test_a_script_without_a_main_guard_can_use_it(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "av.py").write_text("raise SystemExit('a file beside the script was imported')")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, clip], capture_output=True, text=True, timeout=LONG, check=True, cwd=tmp_path
    )
    said = json.loads(done.stdout)
    assert said["index"] == [7, 22]
    assert said["light"]
    assert done.stderr == ""
    wait_for(lambda: not any(map(is_alive, said["pids"])))


def test_no_child_survives_a_parent_that_is_killed(tmp_path: Path, clip: Path, pipe: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT, clip, pipe], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        (pid,) = json.loads(parent.stdout.readline())["pids"]
        # This returns once the child has opened the other end; it then hangs in reading what never comes.
        writer = os.open(pipe, os.O_WRONLY)
        try:
            assert is_alive(pid)
            parent.kill()
            wait_for(lambda: not is_alive(pid))
        finally:
            os.close(writer)


def test_children_hold_no_torch(clip: Path) -> None:
    with DecodePool(1) as pool:
        assert pool.submit(clip, 8).result(LONG)
        (pid,) = pool.child_pids()
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def test_chatter_of_a_library_cannot_get_between_the_answers(clip: Path) -> None:
    code = (
        "import os; from regionvlp.video import worker; real = worker.read_frames;"
        "noise = lambda: (print('chatter', flush=True), os.write(1, b'noise' * 9999));"
        "worker.read_frames = lambda *a, **k: noise() and real(*a, **k);"
        "worker.main([])"
    )
    request = json.dumps({"path": str(clip), "count": 1}).encode() + b"\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(request)
        child.stdin.flush()
        for expected in ("ready", "sizes"):
            size = int.from_bytes(child.stdout.read(4), "big")
            assert expected in json.loads(child.stdout.read(size))
        pixels = child.stdout.read(64 * 64 * 3)
        child.stdin.close()
        assert child.stdout.read() == b""
    assert np.array_equal(np.frombuffer(pixels, np.uint8).reshape(64, 64, 3), read_frames(clip, 1).frames[0])
