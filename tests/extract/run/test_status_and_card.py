"""What people see of an extraction: the live status, and the card of a finished one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from regionvlp.config import load_config
from regionvlp.extract.launch.launch import extract_folder
from regionvlp.extract.run.card import CARD_NAME, write_card
from regionvlp.extract.run.status import folder_status
from regionvlp.extract.settings import ExtractConfig
from regionvlp.pipelines.cli import run
from regionvlp.shards import Claims, open_shards, verify
from regionvlp.store.claims import CLAIMS_NAME, Progress

MakeClip = Callable[..., Path]


@pytest.fixture
def config() -> ExtractConfig:
    values = {
        "detector": {"factory": "fake_detectors:pixel_sums"},
        "video": {"frames": 2, "workers": 1},
        "shards": {"size": 2},
    }
    return load_config(ExtractConfig, values)


@pytest.fixture
def videos(tmp_path: Path, make_clip: MakeClip) -> Path:
    for i in range(5):
        make_clip(tmp_path / "videos" / f"{i}.mp4", seed=i)
    (tmp_path / "videos" / "bad|<b>.mp4").write_bytes(b"no video")
    return tmp_path / "videos"


def test_status_adds_up_who_is_at_work(
    videos: Path, tmp_path: Path, config: ExtractConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    extract_folder(videos, out, config, task=(0, 3))
    with Claims(out, worker="here/0") as one, Claims(out, worker="there/1") as two:
        for claims, shard, speed in ((one, 1, 3.0), (two, 2, 5.0)):
            claim = claims.take(f"shard-0000{shard}", of_videos=2)
            assert claim is not None
            claim.progress = Progress(1, 2, 2, videos_per_second=speed / 2, frames_per_second=speed)
            claim.beat()
        status = folder_status(out)
        assert [(f.shard, f.worker, f.videos, f.of_videos) for f in status.in_flight] == [
            (1, "here/0", 1, 2),
            (2, "there/1", 1, 2),
        ]
        assert (status.stale, status.frames_per_second) == (0, 8.0)
        assert status.eta_seconds == round((4 - 2) / 4.0, 1)
        path = out / CLAIMS_NAME / "shard-00002.json"
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "process": "elsewhere_123456-7s8"}))
        os.utime(path, (time.time() - 1000,) * 2)
        status = folder_status(out)
        assert [flight.stale for flight in status.in_flight] == [False, True]
        assert (status.stale, status.frames_per_second, status.eta_seconds) == (1, 3.0, round(3 / 1.5, 1))

        assert run(["status", str(out), "--json", "-"]) == 0
        said = capsys.readouterr()
        told = json.loads(said.out)
        assert {"videos", "done", "failed", "frames", "failures", "in_flight", "eta_seconds"} <= set(told)
        assert told["in_flight"][0]["worker"] == "here/0"
        assert "1 at work, 1 silent: 3.0 frames/s, about 2 s left" in said.err
        assert "there/1" in said.err
    assert "nobody is at work" in status_text(out, capsys)


def status_text(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["status", str(out)]) == 0
    return capsys.readouterr().out


def test_watching_ends_when_nothing_is_left(
    videos: Path, tmp_path: Path, config: ExtractConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    extract_folder(videos, out, config)
    assert run(["status", str(out), "--watch"]) == 0
    assert "3 of 3 shards done" in capsys.readouterr().out


def test_a_finished_run_leaves_a_card(videos: Path, tmp_path: Path, config: ExtractConfig) -> None:
    out = tmp_path / "out"
    extract_folder(videos, out, config, task=(1, 2))
    assert not (out / CARD_NAME).exists()
    extract_folder(videos, out, config)
    text = (out / CARD_NAME).read_text()
    assert text.startswith("---\n")
    assert "5 videos, 10 frames, 20 regions" in text
    assert "| pixel sums |" in text
    assert "| not-a-video | 1 |" in text
    assert "2 100.0 %" in text
    assert text.count(" 50.0 % ########################################\n") == 2  # scores of 0.5 and 0.9
    assert "licence of the videos | (fill in)" in text
    assert verify(out) == []
    code = text.partition("```python\n")[2].partition("```")[0].replace('"."', repr(str(out)))
    found: dict[str, object] = {}
    exec(code, found)
    assert found["video"].equals(open_shards(out)["0.mp4"])  # type: ignore[attr-defined]


def test_a_card_follows_its_folder_until_somebody_writes_into_it(
    videos: Path, tmp_path: Path, config: ExtractConfig, make_clip: MakeClip, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    extract_folder(videos, out, config)
    card = out / CARD_NAME
    before = card.stat().st_mtime_ns
    assert write_card(out)
    assert card.stat().st_mtime_ns == before
    make_clip(videos / "new.mp4", seed=9)
    extract_folder(videos, out, config)
    assert "6 videos" in card.read_text()

    edited = card.read_text().replace("(fill in)", "CC BY 4.0")
    card.write_text(edited)
    make_clip(videos / "newer.mp4", seed=10)
    extract_folder(videos, out, config)
    assert card.read_text() == edited
    assert run(["shards", "card", str(out)]) == 2
    assert "was edited" in capsys.readouterr().err
    card.unlink()
    assert run(["shards", "card", str(out)]) == 0
    assert "7 videos" in card.read_text()
    card.write_bytes(b"\xff\xfe")
    assert not write_card(out)
