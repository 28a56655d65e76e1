"""Every reader against the true frames of real clips, and the damaged ones against what must become of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from regionvlp.errors import InputError, VideoError
from regionvlp.video import read_frames

# decord 0.6 brings an FFmpeg of 2018 and cannot open these; torchcodec is not exact on AVI and is not asked.
_DECORD_REFUSES = {"-video-with-dash-.mp4", "av1_video.mkv", "newtonscradle.gif", "no_duration.webm"}


def shares(size: int) -> NDArray[np.float64]:
    """[12, size]: how much each of ``size`` pixels counts in each of 12 equal bins."""
    edges = np.arange(13) * size / 12
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * 12 / size


def thumbnail(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """12x12 grey picture, each pixel the mean over its area."""
    return np.asarray(shares(picture.shape[0]) @ picture.mean(axis=2) @ shares(picture.shape[1]).T)


def check(path: Path, truth: dict[str, Any], reader: str) -> None:
    video = read_frames(path, 8, reader=reader)
    assert video.frame_index.tolist() == truth["indices"]
    assert video.frames_decoded == truth["frames"]
    assert {frame.shape for frame in video.frames} == {(truth["height"], truth["width"], 3)}
    assert np.abs(video.frame_time - truth["seconds"]).max() <= 1e-3
    for picture, expected in zip(video.frames, truth["grey12x12"], strict=True):
        grey = np.frombuffer(bytes.fromhex(expected), dtype=np.uint8).reshape(12, 12)
        assert np.abs(thumbnail(picture) - grey).mean() <= 3


def clips(true_frames: dict[str, Any]) -> list[str]:
    assert len(true_frames) >= 30
    return sorted(true_frames)


def test_pyav_gives_the_true_frames_of_every_clip(shared_data: Path, true_frames: dict[str, Any]) -> None:
    for name in clips(true_frames):
        check(shared_data / "videos" / name, true_frames[name], "pyav")


@pytest.mark.skipif(importlib.util.find_spec("decord") is None, reason="decord is not installed")
def test_decord_gives_the_true_frames_or_refuses(shared_data: Path, true_frames: dict[str, Any]) -> None:
    refused = {}
    for name in clips(true_frames):
        try:
            check(shared_data / "videos" / name, true_frames[name], "decord")
        except VideoError as error:
            refused[name] = error.reason
    assert refused == dict.fromkeys(_DECORD_REFUSES, "unreadable")


def test_torchcodec_gives_the_true_frames_or_refuses(shared_data: Path, true_frames: dict[str, Any]) -> None:
    refused = {}
    for name in clips(true_frames):
        try:
            check(shared_data / "videos" / name, true_frames[name], "torchcodec")
        except InputError as error:
            pytest.skip(f"torchcodec cannot be used here: {error}")
        except VideoError as error:
            refused[name] = error.reason
    assert set(refused.values()) == {"unreadable"}
    assert {Path(name).suffix for name in refused} == {".avi"}


@pytest.mark.parametrize(
    ("name", "announced", "decoded", "skips"),
    [
        ("videos_damaged/overwritten_middle.mp4", 300, 237, True),
        ("videos_damaged/truncated.avi", 240, 121, False),
        ("videos_damaged/truncated.mkv", 310, 150, False),
        ("videos_damaged/truncated_index_kept.mp4", 355, 177, True),
        ("videos/corrupted.mp4", 50, 49, True),
    ],
)
def test_damaged_clips_give_what_is_there(
    shared_data: Path, name: str, announced: int, decoded: int, skips: bool
) -> None:
    video = read_frames(shared_data / name, 8)
    assert (video.frames_announced, video.frames_decoded) == (announced, decoded)
    assert (video.packets_skipped > 0) == skips
    assert len(video.frames) == 8
    assert all(frame.std() > 1 for frame in video.frames)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("empty.mp4", "empty-file"),
        ("text.mp4", "not-a-video"),
        ("truncated_index_missing.mp4", "damaged"),
    ],
)
def test_hopeless_clips_are_refused(shared_data: Path, name: str, reason: str) -> None:
    with pytest.raises(VideoError) as caught:
        read_frames(shared_data / "videos_damaged" / name, 8)
    assert caught.value.reason == reason
