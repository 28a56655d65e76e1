"""Failed videos are tried again: within a run where that may help, and in a later one as far as it is told to."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regionvlp.config import load_config
from regionvlp.errors import NothingDoneError, VideoError
from regionvlp.extract.launch.launch import Outcome, extract_folder
from regionvlp.extract.settings import ExtractConfig
from regionvlp.shards import Failure, Manifest, Receipt, ShardWriter, open_shards, read_plan, read_receipts, verify
from regionvlp.store.publication import Publication
from regionvlp.video import DecodePool


def settings(retry: str = "transient", **video: object) -> ExtractConfig:
    return load_config(
        ExtractConfig,
        {
            "detector": {"factory": "fake_detectors:pixel_sums"},
            "video": {"frames": 2, "workers": 1, **video},
            "shards": {"size": 3},
            "run": {"card": False, "retry": retry},
        },
    )


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 250, (12, 14, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


class Failing:
    """Takes the place of the pool's decoding: some videos fail so many times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reason: str, transient: bool, **times: int) -> None:
        self.left = {f"{name.removeprefix('v')}.png": count for name, count in times.items()}
        self.tried: list[str] = []
        submit = DecodePool.submit

        def fail(pool: DecodePool, path: Path, count: int, **stretch: Any) -> Future[Any]:
            self.tried.append(path.name)
            if self.left.get(path.name, 0) <= 0:
                return submit(pool, path, count, **stretch)
            self.left[path.name] -= 1
            failed: Future[Any] = Future()
            failed.set_exception(VideoError("no luck", stage="decode", reason=reason, transient=transient))
            return failed

        monkeypatch.setattr(DecodePool, "submit", fail)
        monkeypatch.setattr("regionvlp.extract.run.worker.PAUSE", 0.0)


def failures(out: Path) -> dict[str, tuple[str, int]]:
    return {f.video_id: (f.reason, f.attempt) for receipt in read_receipts(out) for f in receipt.failures}


def unlike(out: Path, wanted: Path) -> list[str]:
    """Videos in which two folders differ."""
    one, other = open_shards(out), open_shards(wanted)
    return [
        name for name in {*one, *other} if name not in one or name not in other or not one[name].equals(other[name])
    ]


@pytest.fixture
def undisturbed(videos: Path, tmp_path: Path) -> Path:
    extract_folder(videos, tmp_path / "undisturbed", settings())
    return tmp_path / "undisturbed"


@pytest.mark.parametrize("reason", ["io-error", "decoder-crashed"])
def test_what_may_pass_is_tried_again_within_the_run(
    videos: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    failing = Failing(monkeypatch, reason, True, v1=2, v4=99)
    extract_folder(videos, tmp_path / "out", settings())
    assert failing.tried.count("1.png") == failing.tried.count("4.png") == 3
    assert failures(tmp_path / "out") == {"4.png": (reason, 3)}
    assert unlike(tmp_path / "out", undisturbed) == ["4.png"]
    assert open_shards(tmp_path / "out").video_ids == [f"{i}.png" for i in (0, 1, 2, 3, 5)]


@pytest.mark.parametrize(("reason", "transient"), [("damaged", False), ("timeout", True)])
def test_what_cannot_help_or_takes_too_long_is_tried_once(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, transient: bool
) -> None:
    failing = Failing(monkeypatch, reason, transient, v1=1)
    extract_folder(videos, tmp_path / "out", settings())
    assert failing.tried.count("1.png") == 1
    assert failures(tmp_path / "out") == {"1.png": (reason, 1)}


@pytest.mark.parametrize(
    ("retry", "transient", "again"),
    [("none", True, False), ("transient", True, True), ("transient", False, False), ("all", False, True)],
)
def test_a_later_run_tries_what_it_is_told(
    videos: Path,
    tmp_path: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry: str,
    transient: bool,
    again: bool,
) -> None:
    out = tmp_path / "out"
    failing = Failing(monkeypatch, "timeout", transient, v0=1, v1=2, v5=1)
    extract_folder(videos, out, settings())
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    failing.tried.clear()
    outcome = extract_folder(videos, out, settings(retry))
    if not again:
        assert failing.tried == []
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
        return
    assert failing.tried == ["0.png", "1.png", "5.png"]
    assert (outcome.new_videos, outcome.new_frames) == (3, 2)
    assert failures(out) == {"1.png": ("timeout", 2)}
    assert verify(out) == []
    assert open_shards(out).video_ids == [f"{i}.png" for i in (0, 2, 3, 4, 5)]
    extract_folder(videos, out, settings(retry))
    assert unlike(out, undisturbed) == []
    assert open_shards(out).video_ids == open_shards(undisturbed).video_ids
    assert verify(out) == []
    # Nothing of the shards before is left.
    assert len([path for path in out.iterdir() if path.suffix == ".h5"]) == 2


def test_a_transient_failure_is_not_tried_for_ever(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    failing = Failing(monkeypatch, "timeout", True, v1=99)
    for _ in range(5):
        extract_folder(videos, out, settings(attempts=1))
    assert failing.tried.count("1.png") == 3
    assert failures(out) == {"1.png": ("timeout", 3)}
    data = {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")}
    extract_folder(videos, out, settings("all", attempts=1))
    assert failures(out) == {"1.png": ("timeout", 4)}
    # Nothing came of it, so no data was written anew.
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.h5")} == data


def test_a_missing_file_is_tried_when_it_is_there_again(videos: Path, tmp_path: Path, undisturbed: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed, out)
    (out / "shard-00001.json").unlink()
    (out / "shard-00001.h5").unlink()
    kept = (videos / "4.png").rename(tmp_path / "kept.png")
    extract_folder(videos, out, settings())
    assert failures(out) == {"4.png": ("missing-file", 1)}
    assert extract_folder(videos, out, settings()).new_videos == 0
    kept.rename(videos / "4.png")
    assert extract_folder(videos, out, settings()).new_videos == 1
    assert unlike(out, undisturbed) == []


def test_a_shard_without_rows_gets_some(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3, 6):
        (videos / f"{i}.png").unlink()
    Failing(monkeypatch, "timeout", True, v0=1, v1=1, v2=1)
    with pytest.raises(NothingDoneError):
        extract_folder(videos, tmp_path / "out", settings())
    assert extract_folder(videos, tmp_path / "out", settings()).status.done == 3
    assert verify(tmp_path / "out") == []


def retried(videos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Extracts with one failure, and once more without."""
    with monkeypatch.context() as patch:
        Failing(patch, "timeout", True, v1=1)
        extract_folder(videos, out, settings())
    return extract_folder(videos, out, settings())


class KilledError(BaseException):
    """Stands for death: nothing tidies up behind it."""


@pytest.mark.parametrize("moment", ["before the data", "before the receipt", "before the old data goes"])
def test_killed_while_a_shard_is_replaced(
    videos: Path, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """At every moment the receipt that is there names data that is there."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        Failing(patch, "timeout", True, v1=1)
        extract_folder(videos, out, settings())
    pid = os.fork()
    if pid == 0:

        def die(*_: object, **__: object) -> None:
            os._exit(9)

        match moment:
            case "before the data":
                Publication._publish_data = die  # type: ignore[method-assign,assignment]
            case "before the receipt":
                Receipt.write = die  # type: ignore[method-assign,assignment]
            case _:
                unlink = Path.unlink
                Path.unlink = lambda path, **options: (  # type: ignore[method-assign]
                    die() if path.suffix == ".h5" else unlink(path, **options)
                )
        extract_folder(videos, out, settings())
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    names = {receipt.file for receipt in read_receipts(out)}
    assert all((out / str(name)).exists() for name in names)
    assert set(open_shards(out).video_ids) >= {f"{i}.png" for i in (0, 2, 3, 4, 5)}
    extract_folder(videos, out, settings())
    assert verify(out) == []
    assert unlike(out, undisturbed) == []
    assert len(list(out.iterdir())) == len(list(undisturbed.iterdir()))


def test_damaged_rows_do_not_get_a_new_receipt(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        Failing(patch, "timeout", True, v1=1)
        extract_folder(videos, out, settings())
    data = bytearray((out / "shard-00000.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (out / "shard-00000.h5").write_bytes(data)
    receipt = (out / "shard-00000.json").read_bytes()
    extract_folder(videos, out, settings())
    assert "is damaged" in caplog.text
    assert (out / "shard-00000.json").read_bytes() == receipt


def test_two_who_replace_one_receipt_end_with_one_pair(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without claims and locks: the second replaces between the first one's last look and its rename."""
    out = tmp_path / "out"
    retried(videos, out, monkeypatch)
    manifest = Manifest.read(out)
    reader = open_shards(out)
    old = Receipt.read(out / "shard-00000.json")
    write = Receipt.write
    with ShardWriter(out, 0, manifest, replaces=old) as one, ShardWriter(out, 0, manifest, replaces=old) as two:
        one.add(reader["0.png"])
        two.add(reader["2.png"])

        def write_both(receipt: Receipt, folder: Path) -> None:
            monkeypatch.undo()
            two.finish(failures=[Failure(f"{i}.png", "decode", "x", "x", "x") for i in (0, 1)])
            write(receipt, folder)

        monkeypatch.setattr(Receipt, "write", write_both)
        one.finish(failures=[Failure(f"{i}.png", "decode", "x", "x", "x") for i in (1, 2)])
    receipt = Receipt.read(out / "shard-00000.json")
    assert open_shards(out).video_ids == ["0.png", "3.png", "4.png", "5.png"]
    assert receipt == replace(receipt, videos=1)
    extract_folder(videos, out, settings("none"))
    assert verify(out) == []


def test_a_changed_file_that_had_failed_is_tried_again(
    videos: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out, whole = tmp_path / "out", (videos / "4.png").read_bytes()
    (videos / "4.png").write_bytes(whole[:60])  # a download under way
    extract_folder(videos, out, settings("none"))
    assert failures(out) == {"4.png": ("damaged", 1)}
    assert extract_folder(videos, out, settings()).new_videos == 0
    assert caplog.text == ""
    (videos / "4.png").write_bytes(whole)
    assert extract_folder(videos, out, settings("none")).new_videos == 0
    assert "1 videos that had failed are other files now (first: 4.png)" in caplog.text
    caplog.clear()
    assert extract_folder(videos, out, settings()).new_videos == 1
    assert failures(out) == {}
    assert unlike(out, undisturbed) == []
    assert verify(out, planned=True) == []
    assert extract_folder(videos, out, settings()).new_videos == 0
    assert caplog.text == "", "once it is done, nothing differs any more"


def test_a_changed_file_that_has_rows_keeps_them(
    videos: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed, out := tmp_path / "out")
    shutil.copy(videos / "0.png", videos / "1.png")
    for retry in ("transient", "all"):
        caplog.clear()
        assert extract_folder(videos, out, settings(retry)).new_videos == 0
        assert "1 videos changed since they were planned (first: 1.png)" in caplog.text
        assert "also with --retry all" in caplog.text
        assert unlike(out, undisturbed) == []


def test_a_changed_file_of_a_shard_that_is_not_done_is_planned_anew(
    videos: Path, tmp_path: Path, undisturbed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed, out := tmp_path / "out")
    for path in out.glob("shard-00001.*"):
        path.unlink()
    shutil.copy(videos / "0.png", videos / "4.png")
    extract_folder(videos, out, settings())
    assert caplog.text == ""
    assert [row.bytes for row in read_plan(out) or ()] == [path.stat().st_size for path in sorted(videos.iterdir())]
    shards = open_shards(out)
    assert np.array_equal(shards["4.png"].features, shards["0.png"].features)
