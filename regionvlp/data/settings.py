"""The ``data`` section of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from regionvlp.config import HARMLESS, RESUMABLE, Config
from regionvlp.data.formats import CaptionFormat, Queries

Sampling = Literal["default", "legacy"]
# A run folder says where its data lies whatever folder one is in.
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]
ShardPlace = Annotated[
    str, BeforeValidator(lambda place: place if "://" in str(place) else str(Path(place).absolute()))
]
"""A shard folder: a path, or an address such as ``s3://bucket/shards``."""

CheckpointPlace = Annotated[
    str, BeforeValidator(lambda place: place if str(place).startswith("hub:") else str(Path(place).absolute()))
]
"""A checkpoint's or run's folder, or the name of a shared one such as ``hub:owner/name@revision``."""


PixelSide = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(gt=0, le=1)]


class SourceSettings(Config):
    """One set of captioned videos.

    Attributes:
        captions: the annotation file or folder.
        format: see :func:`regionvlp.data.captions.load_captions`.
        split: the part of the annotations to use.
        queries: which captions of a clip, for MSR-VTT and MSVD only.
        columns: role (``video``, ``caption``, ``split`` ...) -> the name of its column, for a table that calls them by
            names that are not known.
        shards: the shard folder with the videos' regions: a path, or an address such as ``s3://bucket/shards``; for
            models of regions.
        videos: a folder of videos and pictures, or of frames cached by ``extract --what frames``; for models of pixels.
        frames: F for this source alone; images have one frame whatever the videos beside them have.
        allow_missing: go on where annotated videos are not in the shards.
        batch_size: of its steps, where sources take turns; null takes ``train.batch_size``.
        weight: how much of a mixed batch it gives, against the others; null takes its size.
        subset: the share of its clips that is trained on, chosen by their ids: a smaller one lies within a larger one.
        held_out: the share of its clips that is kept from training, in this and every other source, and evaluated on;
            for runs without ``eval.source``, and in one source only.
    """

    captions: AbsolutePath
    format: CaptionFormat = "auto"
    split: str | None = None
    queries: Queries | None = None
    columns: dict[str, str] | None = None
    shards: ShardPlace | None = None
    videos: AbsolutePath | None = None
    frames: int | None = Field(default=None, ge=1, le=256)
    allow_missing: bool = False
    batch_size: int | None = Field(default=None, ge=1)
    weight: float | None = Field(default=None, gt=0)
    subset: float | None = Field(default=None, gt=0, le=1)
    held_out: float | None = Field(default=None, gt=0, lt=1)

    @property
    def place(self) -> str:
        """Where its videos lie, whatever they are made into."""
        return self.shards or str(self.videos)

    @model_validator(mode="after")
    def _one_place(self) -> SourceSettings:
        if (self.shards is None) == (self.videos is None):
            both = "both shards and videos" if self.shards else "neither shards nor videos"
            raise ValueError(f"it names {both}: shards for models of regions, videos for models of pixels")
        return self


class ClipSettings(Config):
    """What a clip is made of, whatever it holds.

    Attributes:
        frames: F, frames per video; of a shorter video the last one is repeated with its tokens masked.
        sampling: how training draws frames; ``legacy`` is the public code's way.
    """

    frames: int = Field(default=1, ge=1, le=256)
    sampling: Sampling = "default"


class RegionClipSettings(ClipSettings):
    """What a clip of regions is made of.

    Attributes:
        regions: R, regions per frame, the most confident first.
        loc_dim: width of the location vector: 7 in the paper, 6 in its public code and checkpoints.
        padding: what stands in the slots of masked regions: ``zeros``, or the frame's last region again (``edge``), as
            in the public code, whose region-word score is a mean over padded slots as well.
        in_memory: read every video once, before the first step, and keep it; for sets that memory holds.
        checksums: compare the checksum of every frame that is read.
        staging: a local folder for copies of shards that lie at an address; null reads their frames by range.
        staging_gb: how large the copies may grow, in 10^9 bytes.
    """

    regions: int = Field(default=30, ge=1, le=1000)
    loc_dim: Literal[6, 7] = 7
    padding: Literal["zeros", "edge"] = "zeros"
    in_memory: Annotated[bool, HARMLESS] = False
    checksums: Annotated[bool, HARMLESS] = True
    staging: Annotated[AbsolutePath | None, HARMLESS] = None
    staging_gb: Annotated[float, Field(gt=0), HARMLESS] = 100.0


class PixelClipSettings(ClipSettings):
    """What a clip of pixels is made of.

    Attributes:
        image_size: side of a frame in pixels, or its height and width; the model's.
        crop_area: training cuts a rectangle of this share of the frame, drawn between the two once per clip, with a
            side ratio between 3:4 and 4:3, and makes it as large as the model reads. Tests take the whole central
            square (or, of a model of oblong frames, the largest such rectangle).
        flip: probability of a mirrored clip in training.
        antialias: whether frames are made smaller without aliasing; the public Frozen's models were trained and tested
            with aliasing.
        reader: what decodes videos, see :func:`regionvlp.video.read_frames`.
        time_limit: seconds that decoding one video may take.
    """

    image_size: PixelSide | tuple[PixelSide, PixelSide] = 224
    crop_area: tuple[Share, Share] = (0.5, 1.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    antialias: bool = True
    reader: Annotated[Literal["auto", "pyav", "decord", "torchcodec"], HARMLESS] = "auto"
    time_limit: Annotated[float, Field(gt=0), HARMLESS] = 120.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @field_validator("crop_area")
    @classmethod
    def _rises(cls, given: tuple[float, float]) -> tuple[float, float]:
        if given[0] > given[1]:
            raise ValueError("the smaller share comes first")
        return given


class DataSettings(Config):
    """What a sample is made of; each system's own class says what ``clips`` hold.

    Attributes:
        sources: where captions and clips come from; only training needs any.
        clips: the video side of a sample.
        text_length: at most so many tokens, the two special ones included.
        pad_text: pad each batch to ``text_length`` (the public code does) instead of to its longest text.
        words: ``all`` words of a caption, or only its ``nouns_and_verbs`` (DemoVLP's select-token ablation; needs the
            tagger of :mod:`regionvlp.data.text.content_words`).
        pairs: in training, one sample per video with one of its captions at random, or one per caption.
        unreadable: the share of a source's samples that training may leave out because they cannot be read (damaged,
            or values that are no numbers); one always may. Each is named in the log, and the next of the epoch's order
            takes its place.
    """

    sources: tuple[SourceSettings, ...] = ()
    clips: ClipSettings = ClipSettings()
    text_length: int = Field(default=100, ge=3, le=512)
    pad_text: bool = False
    words: Literal["all", "nouns_and_verbs"] = "all"
    pairs: Literal["per_video", "all"] = "per_video"
    unreadable: Annotated[float, Field(ge=0, lt=1), RESUMABLE] = 0.001


class RegionDataSettings(DataSettings):
    """Captions and clips of regions."""

    clips: RegionClipSettings = RegionClipSettings()


class PixelDataSettings(DataSettings):
    """Captions and clips of pixels."""

    clips: PixelClipSettings = PixelClipSettings()
