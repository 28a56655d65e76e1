"""Captions joined with regions: the samples of training and evaluation, and the batches made of them.

Shape letters: B batch, F frames, R regions per frame, C feature width, P width of the location vector, L text tokens.
In: a captions table whose ids are those of the shards, the shards, a tokenizer. Out: batches of torch tensors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from regionvlp.data.captions import EXAMPLES, Caption
from regionvlp.data.sampling import Sampling, choose_frames
from regionvlp.data.settings import RegionClipSettings, RegionDataSettings
from regionvlp.data.text.content_words import ContentWords, WordWeights
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, ShardError
from regionvlp.regions import VideoRegions, cast_features, location_vectors


class VideoSample(TypedDict):
    """One video: ``features`` [F, R, C] float32, ``location`` [F, R, P] float32, ``region_mask`` [F, R] bool."""

    features: Tensor
    location: Tensor
    region_mask: Tensor
    video_id: str


class Sample(VideoSample):
    """One video with one caption."""

    caption: str
    caption_id: str


class VideoBatch(TypedDict):
    """B videos: ``features`` [B, F, R, C], ``location`` [B, F, R, P], ``region_mask`` [B, F, R] (True = real)."""

    features: Tensor
    location: Tensor
    region_mask: Tensor
    video_id: list[str]


class TextBatch(TypedDict):
    """B texts: ``input_ids`` [B, L] int64, ``attention_mask`` [B, L] bool (True = a token).

    ``word_weight`` [B, L - 1] float32, of the tokens after ``[CLS]``, where weights were asked for.
    """

    input_ids: Tensor
    attention_mask: Tensor
    caption: list[str]
    word_weight: NotRequired[Tensor]


class Batch(VideoBatch, TextBatch):
    """B videos, each with its caption."""

    caption_id: list[str]


@runtime_checkable
class FrameSource(Protocol):
    """Shards that read single frames, as :class:`regionvlp.shards.ShardReader` does."""

    def num_frames(self, video_id: str) -> int: ...

    def frame(self, video_id: str, slot: int) -> VideoRegions: ...


class RegionVideos(Dataset[VideoSample]):
    """Videos alone, one sample each, with the frames in the middle of their segments: the gallery of an evaluation.

    Args:
        shards: video id -> regions.
        video_ids: which videos, in this order.
        settings: frames, regions, location width and padding of a sample.
        frames: F in place of the settings'.

    Raises:
        InputError: the shards do not hold some of the videos.
    """

    def __init__(
        self,
        shards: Mapping[str, VideoRegions],
        video_ids: Sequence[str],
        settings: RegionClipSettings,
        frames: int | None = None,
    ) -> None:
        missing = [video_id for video_id in video_ids if video_id not in shards]
        if missing:
            names = ", ".join(missing[:EXAMPLES]) + (", ..." if len(missing) > EXAMPLES else "")
            raise InputError(
                f"{len(missing)} of {len(video_ids)} videos are not in the shards: {names}", "extract them"
            )
        self.shards, self.video_ids, self.settings = shards, list(video_ids), settings
        self.frames = frames or settings.frames

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, index: int) -> VideoSample:
        return self.read(self.video_ids[index])

    def read(
        self, video_id: str, rng: np.random.Generator | None = None, sampling: Sampling = "default"
    ) -> VideoSample:
        """One video as tensors; with ``rng`` its frames are drawn, see :func:`choose_frames`.

        Raises:
            ShardError: a feature is not a finite number, or a frame cannot be read.
        """
        regions = self.chosen(video_id, rng, sampling)
        slots, mask = self._slots(regions)
        rows = np.arange(len(slots))[:, None]
        features = cast_features(regions.features[rows, slots], np.float32)
        # Asked of float32: of halves, numpy takes longer to tell than to read them.
        if not (np.isfinite(features).all() and np.isfinite(regions.boxes).all()):
            raise ShardError(f"the regions of {video_id} hold values that are no numbers", "extract the video again")
        location = location_vectors(regions.boxes[rows, slots], regions.image_size, self.settings.loc_dim)
        # With edge padding the slots repeat the last region, of which a frame without any has none.
        blank = ~mask if self.settings.padding == "zeros" else ~mask.any(axis=1)
        features[blank], location[blank] = 0, 0
        return {
            "features": torch.from_numpy(self._padded(features)),
            "location": torch.from_numpy(self._padded(location)),
            "region_mask": torch.from_numpy(np.pad(mask, ((0, self.frames - len(mask)), (0, 0)))),
            "video_id": video_id,
        }

    def chosen(
        self, video_id: str, rng: np.random.Generator | None = None, sampling: Sampling = "default"
    ) -> VideoRegions:
        """What is stored of the frames that a sample is made of, boxes and frame numbers included.

        A short video has fewer than F frames here, and the slots are those of the shards.
        """
        source = self.shards
        if not isinstance(source, FrameSource):
            whole = source[video_id]
            return _of_frames(whole, choose_frames(whole.num_frames, self.frames, rng, sampling))
        chosen = choose_frames(source.num_frames(video_id), self.frames, rng, sampling)
        if len(chosen) == 1:
            return source.frame(video_id, chosen[0])
        # Frames of a video lie together: reading all at once beats reading several apart.
        return _of_frames(source[video_id], chosen)

    def _slots(self, regions: VideoRegions) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """For each of R slots which stored region stands there, and whether it is a real one: [F, R] each."""
        wanted = np.arange(self.settings.regions)
        real = regions.num_regions[:, None]
        return np.minimum(wanted, np.maximum(real - 1, 0)), wanted < real

    def _padded(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[f, R, ...] -> [F, R, ...], the last frame repeated; the mask leaves the repetitions out."""
        return values if len(values) == self.frames else values[np.minimum(np.arange(self.frames), len(values) - 1)]


class RegionTextDataset(Dataset[Sample]):
    """Videos with captions. A sample is a pure function of (seed, epoch, index).

    Args:
        captions: with the ids of the shards (:func:`regionvlp.data.captions.resolve_videos`).
        shards: video id -> regions.
        settings: what a sample is made of.
        training: draw frames and, with ``pairs: per_video``, captions. Otherwise there is one sample per caption, with
            the frames in the middle of their segments.
        seed: of the draws.
        frames: F in place of the settings'.

    Attributes:
        captions: the table, in its order.
        video_ids: the distinct videos, in the order of the table.

    Raises:
        InputError: there are no captions, or the shards do not hold some of the videos.
    """

    def __init__(
        self,
        captions: Sequence[Caption],
        shards: Mapping[str, VideoRegions],
        settings: RegionDataSettings,
        *,
        training: bool,
        seed: int = 0,
        frames: int | None = None,
    ) -> None:
        if not captions:
            raise InputError("there are no captions to read", "check the annotations and their split")
        self.captions, self.training, self.seed = list(captions), training, seed
        by_video: defaultdict[str, list[int]] = defaultdict(list)
        for i, caption in enumerate(self.captions):
            by_video[caption.video_id].append(i)
        self.video_ids = list(by_video)
        self.videos = RegionVideos(shards, self.video_ids, settings.clips, frames)
        self._by_video = list(by_video.values())
        self._per_video = training and settings.pairs == "per_video"
        # In shared memory, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._by_video if self._per_video else self.captions)

    def set_epoch(self, epoch: int) -> None:
        """Makes the draws those of ``epoch``, in this process and in its loader's workers."""
        self._epoch[0] = epoch

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        rng = np.random.default_rng([self.seed, int(self._epoch[0]), index]) if self.training else None
        if rng is not None and self._per_video:
            own = self._by_video[index]
            index = own[int(rng.integers(len(own)))]
        caption = self.captions[index]
        video = self.videos.read(caption.video_id, rng, self.videos.settings.sampling)
        return {**video, "caption": caption.caption, "caption_id": caption.caption_id}


_ByRegion = Literal["features", "location", "region_mask"]
_BY_REGION: tuple[_ByRegion, ...] = ("features", "location", "region_mask")


class Collate:
    """Makes batches of samples; all of it can be handed to a loader's workers.

    Args:
        tokenizer: for the captions.
        max_length: at most so many tokens per text.
        pad_to: L; by default the longest text of a batch decides.
        select: leaves nothing but the nouns and verbs of a caption; None for whole captions.
        weights: of the words; without, a batch has no ``word_weight``.
        trim: leave out the region slots that are padding throughout a training batch.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        max_length: int,
        pad_to: int | None = None,
        select: ContentWords | None = None,
        weights: WordWeights | None = None,
        trim: bool = False,
    ) -> None:
        self.tokenizer, self.max_length, self.pad_to = tokenizer, max_length, pad_to
        self.select, self.weights, self.trim = select, weights, trim

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        texts = self.texts([sample["caption"] for sample in samples])
        videos = self.videos(samples)
        if self.trim:
            # Real regions come first in every frame. One slot stays, so that a batch without any keeps its shape.
            slots = max(1, int(videos["region_mask"].sum(-1).max()))
            for key in _BY_REGION:
                videos[key] = videos[key][:, :, :slots]
        return {**videos, **texts, "caption_id": [sample["caption_id"] for sample in samples]}

    def videos(self, samples: Sequence[VideoSample]) -> VideoBatch:
        """The batch without its texts."""
        return {
            "features": _stack(samples, "features"),
            "location": _stack(samples, "location"),
            "region_mask": _stack(samples, "region_mask"),
            "video_id": [sample["video_id"] for sample in samples],
        }

    def texts(self, captions: Sequence[str]) -> TextBatch:
        """The batch without its videos."""
        read = [self.select.select(caption) for caption in captions] if self.select else captions
        encoded = self.tokenizer.encode(read, self.max_length, self.pad_to)
        batch: TextBatch = {
            "input_ids": encoded["input_ids"],
            "attention_mask": encoded["attention_mask"],
            "caption": list(captions),
        }
        if self.weights is not None:
            width = encoded["input_ids"].shape[1]
            batch["word_weight"] = self.weights(read, self.tokenizer, self.max_length, width)
        return batch


def _stack(samples: Sequence[VideoSample], key: _ByRegion) -> Tensor:
    return torch.stack([sample[key] for sample in samples])


def _of_frames(regions: VideoRegions, chosen: Sequence[int]) -> VideoRegions:
    if len(chosen) == regions.num_frames:
        return regions
    fields = {name: value[list(chosen)] for name, value in vars(regions).items() if isinstance(value, np.ndarray)}
    return VideoRegions(video_id=regions.video_id, **fields)
