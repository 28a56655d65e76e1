"""The dry run: its numbers are those of the run that follows, and it writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.config import load_config
from regionvlp.errors import WeightsError
from regionvlp.extract.detector import RegionDetector
from regionvlp.extract.launch import launch
from regionvlp.extract.run import estimate as estimate_module
from regionvlp.extract.run.estimate import Calibration, estimate
from regionvlp.extract.settings import ExtractConfig
from regionvlp.extract.sources import open_source
from regionvlp.pipelines.cli import run
from regionvlp.pipelines.output import human_time
from regionvlp.regions import FrameRegions
from regionvlp.shards import inspect

MakeClip = Callable[..., Path]


def settings(**sections: dict[str, object]) -> ExtractConfig:
    base = {"detector": {"name": "toy"}, "video": {"frames": 3, "workers": 1}, "shards": {"size": 2}}
    return load_config(ExtractConfig, base, sections)


@pytest.fixture
def videos(tmp_path: Path, make_clip: MakeClip) -> Path:
    from PIL import Image

    for i in range(5):
        make_clip(tmp_path / f"videos/{i}.mp4", seed=i)
    Image.fromarray(np.zeros((40, 50, 3), dtype=np.uint8)).save(tmp_path / "videos/p.png")
    return tmp_path / "videos"


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("sections", [{}, {"shards": {"format": "parquet", "dtype": "uint8", "size": 4}}])
def test_the_numbers_are_those_of_the_run(videos: Path, tmp_path: Path, sections: dict[str, dict[str, object]]) -> None:
    source, out, config = open_source(videos), tmp_path / "out", settings(**sections)
    before = everything(tmp_path)
    told = estimate(source, out, config)
    assert everything(tmp_path) == before
    assert (told.videos, told.new, told.left, told.frames) == (6, 6, 6, 16)
    assert told.calibration is not None
    assert (told.calibration.read, told.calibration.frames, told.calibration.failures) == (6, 16, {})
    assert told.seconds == told.calibration.seconds(6, 16) > 0
    launch.extract_folder(videos, out, config)
    found = inspect(out)
    assert (found["frames"], found["shards_planned"]) == (told.frames, told.shards)
    large = found["feature_width"] * 30 * (1 if config.shards.dtype == "uint8" else 2)
    assert large < told.frame_bytes < 1.5 * large
    assert 0.9 * told.bytes < found["bytes"] < 1.3 * told.bytes + 200_000


def test_what_is_done_does_not_count(videos: Path, tmp_path: Path, make_clip: MakeClip) -> None:
    out = tmp_path / "out"
    launch.extract_folder(videos, out, settings())
    done = estimate(open_source(videos), out, settings())
    assert (done.videos, done.new, done.left, done.shards, done.frames, done.calibration) == (6, 0, 0, 0, 0, None)
    make_clip(videos / "new.mp4", seed=9)
    before = everything(out)
    more = estimate(open_source(videos), out, settings())
    assert everything(out) == before
    assert (more.videos, more.new, more.left, more.shards, more.frames) == (7, 1, 1, 1, 3)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("".join(f"{i}\n" for i in range(300)))
    told = estimate(open_source(tmp_path / "l.txt"), tmp_path / "out", settings())
    assert (told.looked.checked, told.looked.missing, told.frames) == (200, 200, 900)
    assert told.calibration is None
    assert told.seconds is None
    assert "none of the 64 videos that were tried can be read" in told.why_not


def test_pictures_without_a_suffix_count_one_frame_once_seen(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "cc").mkdir()
    for i in range(4):
        (tmp_path / f"cc/{i}_77").write_bytes((videos / "p.png").read_bytes())
    (tmp_path / "cc/l.tsv").write_text("".join(f"caption {i}\t{i}_77\n" for i in range(4)))
    assert estimate(open_source(tmp_path / "cc/l.tsv"), tmp_path / "out", settings()).frames == 4


def test_a_detector_without_weights_leaves_the_other_numbers(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise WeightsError("no weights", "fetch them")

    monkeypatch.setattr(RegionDetector, "load", refuse)
    told = estimate(open_source(videos), tmp_path / "out", settings())
    assert (told.frames, told.calibration, told.why_not) == (16, None, "no weights")
    assert told.frame_bytes > 30 * 2048 * 2


class Clock:
    """Stands in for the module ``time``: it goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


class SlowDetector:
    """Takes a second for each frame, and a minute for the first batch."""

    max_batch, feature_width, device = 4, 64, "cuda:0"

    def __init__(self, clock: Clock) -> None:
        self.clock, self.first = clock, True

    def identity(self) -> dict[str, Any]:
        return {}

    def detect(self, frames: Sequence[Any]) -> list[FrameRegions]:
        self.clock.now += 60 if self.first else len(frames)
        self.first = False
        return [None] * len(frames)  # type: ignore[list-item]


def test_the_first_batch_does_not_count_and_devices_overlap(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(estimate_module, "time", clock)
    monkeypatch.setattr(estimate_module, "load_detector", lambda settings: SlowDetector(clock))
    found = estimate(open_source(videos), tmp_path / "out", settings()).calibration
    assert found is not None
    assert found.detect_seconds == 1
    assert (found.device, found.overlaps, found.detected) == ("cuda:0", True, 16)


def test_time_is_the_slower_of_two_devices_or_the_sum_on_one() -> None:
    values = {"read": 1, "failures": {}, "frames": 8, "detected": 8, "decode_seconds": 0.5, "detect_seconds": 0.25}
    assert Calibration(device="cuda", overlaps=True, **values).seconds(100, 800) == 200
    assert Calibration(device="cpu", overlaps=False, **values).seconds(100, 800) == 250


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "1 s"),
        (59.4, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (93784, "1 d 2 h"),
        (86400 * 12 + 59, "12 d"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert human_time(seconds) == words


def test_the_command(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    out = tmp_path / "deep/out"
    arguments = ["extract", "--videos", str(videos), "--out", str(out), "--detector", "toy", "--frames", "2"]
    assert run([*arguments, "--set", "video.workers=1", "--dry-run", "--json", "-"]) == 0
    assert not (tmp_path / "deep").exists()
    captured = capsys.readouterr()
    values = json.loads(captured.out)
    assert (values["videos"], values["frames"], values["bytes"]) == (6, 11, 11 * values["frame_bytes"])
    assert values["calibration"]["read"] == 6
    assert values["bytes_free"] > 0
    assert "frames   11 at most" in captured.err
    assert "nothing was written" in captured.err
    assert run([*arguments, "--dry-run", "--root", str(tmp_path)]) == 2
    assert "--root is for lists" in capsys.readouterr().err
    assert run([*arguments, "--source", "lst"]) == 2
    assert "did you mean 'list'?" in capsys.readouterr().err
