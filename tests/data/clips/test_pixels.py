"""Clips of pixels: which frames, drawn and in the middle, of videos and of cached frames; and what cannot be read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.pixels import CachedFrames, Frames, PixelClips, VideoFrames
from regionvlp.data.draws import Draws
from regionvlp.data.settings import PixelClipSettings
from regionvlp.errors import ConfigError, RegionVLPError, UnreadableItemsError
from regionvlp.pipelines.cli import run
from regionvlp.shards.pictures import open_frames
from regionvlp.video import read_frames

SETTINGS = PixelClipSettings(image_size=32)
NAMES = ["a.mp4", "b.mp4", "short.mp4", "photo.png"]
LENGTHS = {"a.mp4": 12, "b.mp4": 13, "short.mp4": 2, "photo.png": 1}


@pytest.fixture
def folder(tmp_path: Path, make_clip: Callable[..., Path]) -> Path:
    videos = tmp_path / "videos"
    for seed, name in enumerate(NAMES[:3]):
        make_clip(videos / name, seed, frames=LENGTHS[name])
    Image.new("RGB", (50, 40), "green").save(videos / "photo.png")
    return videos


@pytest.fixture
def source(folder: Path) -> Iterator[VideoFrames]:
    opened = VideoFrames({path.name: path for path in folder.iterdir()}, SETTINGS)
    yield opened
    opened.close()


def truth(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame."""
    return read_frames(path, 1000).frames


def test_test_clips_are_the_middle_frames_from_the_centre(folder: Path, source: VideoFrames) -> None:
    batch = PixelClips(source, NAMES, SETTINGS).read_batch([0, 2, 3, 1, 0], FrameChoice(4))
    assert batch["pixels"].shape == (5, 4, 3, 32, 32)
    assert batch["frame_mask"].sum(1).tolist() == [4, 2, 1, 4, 4]
    assert not batch["pixels"][~batch["frame_mask"]].any()
    frames = truth(folder / "a.mp4")
    for slot, number in enumerate((1, 4, 7, 10)):
        square = Image.fromarray(frames[number]).crop((8, 0, 72, 64)).resize((32, 32), Image.Resampling.BILINEAR)
        seen = batch["pixels"][0, slot].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(seen - np.array(square)).max() <= 1
    assert torch.equal(batch["pixels"][0], batch["pixels"][4])


def test_training_draws_frames_and_one_view_of_a_clip(folder: Path, source: VideoFrames) -> None:
    """With a view that shows everything, the frames are those that the slots of a draw name."""
    settings = PixelClipSettings(image_size=(64, 80), crop_area=(1, 1), flip=0)
    whole = PixelClips(source, NAMES, settings)
    choice, draws = FrameChoice(4), Draws((5, 1), np.arange(2))
    batch = whole.read_batch([0, 1], choice, draws)
    slots, _ = choice.slots([12, 13], draws)
    for at, name in enumerate(NAMES[:2]):
        frames = truth(folder / name)
        for slot, number in enumerate(slots[at]):
            assert np.array_equal(batch["pixels"][at, slot].permute(1, 2, 0).numpy(), frames[number])
    flipped = PixelClips(source, NAMES, settings.model_copy(update={"flip": 1.0})).read_batch([0, 1], choice, draws)
    assert torch.equal(flipped["pixels"], batch["pixels"].flip(-1))


def test_a_sample_does_not_depend_on_its_batch(source: VideoFrames) -> None:
    clips, choice = PixelClips(source, NAMES, SETTINGS), FrameChoice(3)
    together = clips.read_batch([0, 1], choice, Draws((0, 0), [7, 8]))
    alone = clips.read_batch([1], choice, Draws((0, 0), [8]))
    assert torch.equal(together["pixels"][1], alone["pixels"][0])
    other_epoch = clips.read_batch([1], choice, Draws((0, 1), [8]))
    assert not torch.equal(alone["pixels"], other_epoch["pixels"])


def test_cached_frames_are_chosen_from_without_decoding(folder: Path, tmp_path: Path, source: VideoFrames) -> None:
    arguments = ["--videos", str(folder), "--out", str(tmp_path / "f"), "--frames", "12", "--set", "video.workers=1"]
    assert run(["extract", "--what", "frames", *arguments]) == 0
    cached = PixelClips(CachedFrames(open_frames(tmp_path / "f")), NAMES, SETTINGS)
    for path in folder.iterdir():
        path.unlink()  # nothing of the videos is needed
    for draws in (None, Draws((0, 0), np.arange(3))):
        batch = cached.read_batch([0, 2, 3], FrameChoice(4), draws)
        assert batch["frame_mask"].sum(1).tolist() == [4, 2, 1]
    middle = open_frames(tmp_path / "f")["a.mp4"].frames([1, 4, 7, 10])
    whole = PixelClips(cached._source, NAMES, PixelClipSettings(image_size=(64, 80)))
    seen = whole.read_batch([0], FrameChoice(4))["pixels"][0].permute(0, 2, 3, 1).numpy()
    assert np.array_equal(seen, np.stack(middle))


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "broken.mp4").write_bytes(b"\x00" * 100)
    names = ["a.mp4", "broken.mp4", "gone.mp4"]
    source = VideoFrames({name: folder / name for name in names}, SETTINGS)
    with pytest.raises(UnreadableItemsError) as caught:
        PixelClips(source, names, SETTINGS).read_batch([0, 1, 2, 0], FrameChoice(2))
    source.close()
    assert sorted(caught.value.reasons) == [1, 2]
    assert "broken.mp4" in caught.value.reasons[1]


def test_legacy_draws_are_refused(source: VideoFrames) -> None:
    with pytest.raises(ConfigError, match="sampling legacy is for clips of regions"):
        PixelClips(source, NAMES, PixelClipSettings(sampling="legacy"))


class Batches(Dataset[torch.Tensor]):
    """Two batches of clips, as a loader's worker reads them."""

    def __init__(self, clips: PixelClips) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return 2

    def __getitem__(self, at: int) -> torch.Tensor:
        return self.clips.read_batch([at, 2], FrameChoice(2))["pixels"]


def test_worker_processes_decode_in_processes_of_their_own(source: VideoFrames) -> None:
    clips = PixelClips(source, NAMES, SETTINGS)
    here = [Batches(clips)[at] for at in range(2)]  # the parent's pool is open when the workers are forked
    for found, expected in zip(DataLoader(Batches(clips), batch_size=None, num_workers=2), here, strict=True):
        assert torch.equal(found, expected)
    copy = pickle.loads(pickle.dumps(clips))
    assert torch.equal(copy.read_batch([0, 2], FrameChoice(2))["pixels"], here[0])
    copy._source.close()


class Oblong:
    """A source whose frames differ in size within a clip."""

    def read(self, video_ids: Sequence[str], choice: FrameChoice, draws: Draws | None) -> list[Frames | RegionVLPError]:
        return [[np.full((height, 30, 3), 50, np.uint8) for height in (20, 41)] for _ in video_ids]


def test_odd_and_changing_sizes() -> None:
    clips = PixelClips(Oblong(), ["x"], PixelClipSettings(image_size=(24, 40)))
    for draws in (None, Draws((0,), [0])):
        assert (clips.read_batch([0], FrameChoice(2), draws)["pixels"] == 50).all()
