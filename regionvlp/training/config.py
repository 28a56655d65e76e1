"""The configuration of a training run, from data to evaluation: what ``RUN/config.yaml`` holds. Imports no torch.

``task`` names the system and so decides what ``model``, ``loss`` and ``data.clips`` may hold: :data:`RUN_CONFIGS` has
a class for each. :func:`run_config` is the way in; it also reads files of older versions.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from regionvlp.config import Config, known_keys, merge, read_yaml, validate
from regionvlp.data.settings import (
    CheckpointPlace,
    DataSettings,
    PixelDataSettings,
    RegionDataSettings,
    SourceSettings,
)
from regionvlp.errors import ConfigError, nearest
from regionvlp.losses.settings import GlobalLossSettings, LossSettings
from regionvlp.models.settings import DualEncoderSettings, Inflation, PixelDualEncoderSettings, TowerSettings
from regionvlp.training.settings import OptimSettings, TrainSettings, split_batch

logger = logging.getLogger(__name__)

# Until 0.1.0 these stood in ``data`` itself.
MOVED_TO_CLIPS = ("frames", "regions", "loc_dim", "padding", "sampling", "in_memory")


class TokenizerSettings(Config):
    """Where the tokenizer comes from; a checkpoint always carries its own copy.

    Attributes:
        name: a folder or a Hugging Face name such as ``distilbert-base-uncased``; null trains a WordPiece on the
            training captions.
        vocab_size: of a trained one, at most.
    """

    name: str | None = None
    vocab_size: int = Field(default=8000, ge=64)


class EvalSettings(Config):
    """What is evaluated during and after training.

    Attributes:
        source: the held-out captions and their shards; null for no evaluation.
        frames: F at evaluation; null takes ``data.clips.frames``.
        batch_size: videos, and texts, that are encoded at a time.
    """

    source: SourceSettings | None = None
    frames: int | None = Field(default=None, ge=1, le=256)
    batch_size: int = Field(default=64, ge=1)


class StageSettings(Config):
    """A stretch of a run with settings of its own, such as more frames; what it does not say is the run's.

    A stage begins with the weights that the one before ended with (its last, not its best), with a new optimizer and
    a schedule of its own, whose epochs count from the stage's first step. Steps are counted through.

    Attributes:
        name: in the log; null takes its number.
        frames: F, of ``data.clips`` and of ``model.video``, whose temporal embedding grows as ``inflation`` says.
        inflation: in place of the run's.
        data, loss, optim, train, eval: what is otherwise in these sections.
    """

    name: str | None = None
    frames: int | None = Field(default=None, ge=1, le=256)
    inflation: Inflation | None = None
    data: dict[str, Any] = Field(default_factory=dict)
    loss: dict[str, Any] = Field(default_factory=dict)
    optim: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    eval: dict[str, Any] = Field(default_factory=dict)

    def layer(self) -> dict[str, Any]:
        """The stage's settings as a layer over the run's configuration."""
        said = self.model_dump(mode="json", exclude={"name", "frames"}, exclude_defaults=True)
        if self.frames is None:
            return said
        frames = {"data": {"clips": {"frames": self.frames}}, "model": {"video": {"frames": self.frames}}}
        return merge(frames, said)


class RunConfig(Config):
    """What the runs of all systems can be told; each system's own class says the rest.

    Attributes:
        task: which system, a key of :data:`RUN_CONFIGS`.
        init: a checkpoint folder, or ``hub:owner/name@revision``, whose weights (and tokenizer) the run starts from.
            Resuming a run is another thing.
        inflation: how its temporal embedding becomes one of more frames, see
            :func:`regionvlp.models.inflation.inflate_frames`.
        stages: one after another in one run; none is one stage, of the run's own settings.
    """

    task: str
    init: CheckpointPlace | None = None
    inflation: Inflation = "zeros"
    tokenizer: TokenizerSettings = TokenizerSettings()
    data: DataSettings
    model: Any
    loss: Any
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    eval: EvalSettings = EvalSettings()
    stages: tuple[StageSettings, ...] = ()

    def staged(self, source: str = "the configuration") -> list[RunConfig]:
        """The configuration of each stage.

        Raises:
            ConfigError: naming the stage and its first offending key.
        """
        if not self.stages:
            return [self]
        base = self.model_dump(mode="json") | {"stages": []}
        return [
            validate(type(self), merge(base, stage.layer()), f"stage {number} ({stage.name or 'unnamed'}) of {source}")
            for number, stage in enumerate(self.stages, 1)
        ]

    @property
    def evaluated(self) -> SourceSettings | None:
        """What is evaluated on: ``eval.source``, or the source that holds clips out."""
        return self.eval.source or next((source for source in self.data.sources if source.held_out), None)

    @property
    def all_sources(self) -> tuple[SourceSettings, ...]:
        """What is trained on, then what is evaluated on."""
        return (*self.data.sources, *((self.eval.source,) if self.eval.source else ()))

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Pairs of the steps that the sources take."""
        own = () if self.train.turns == "mix" else (source.batch_size for source in self.data.sources)
        return tuple(size or self.train.batch_size for size in own) or (self.train.batch_size,)

    @property
    def most_frames(self) -> int:
        """F of the longest clip that the run reads."""
        every = (self.eval.frames, *(source.frames for source in self.data.sources))
        return max(self.data.clips.frames, *(frames or 1 for frames in every))

    @property
    def counts_padding(self) -> bool:
        """Whether losses depend on what batches are padded to; then nobody may pad, or trim, differently."""
        return False

    def check_sizes(self) -> None:
        """Makes sure that the sections fit each other.

        Raises:
            ConfigError: naming the two keys that do not.
        """
        self._check_sources()

    def _check_sources(self) -> None:
        """What sources say that only fits one way of taking turns, or one of them."""
        sources, turns = self.data.sources, self.train.turns
        holders = [f"data.sources.{n}.held_out" for n, source in enumerate(sources) if source.held_out]
        if len(holders) > 1 or (holders and self.eval.source):
            message = f"{' and '.join([*holders, *(['eval.source'] if self.eval.source else [])])} are set"
            raise ConfigError(f"{message}: one alone is evaluated on", "keep one of them")
        for key, wanted in (("batch_size", "alternate"), ("weight", "mix")):
            place = next((n for n, source in enumerate(sources) if getattr(source, key) is not None), None)
            if place is not None and turns != wanted:
                message = f"data.sources.{place}.{key} means nothing with train.turns={turns}"
                raise ConfigError(message, f"set train.turns={wanted}, or leave {key} out")
        frames = [source.frames or self.data.clips.frames for source in sources]
        if turns == "mix" and len(set(frames)) > 1:
            message = f"train.turns=mix puts clips of {min(frames)} and {max(frames)} frames into one batch"
            raise ConfigError(message, "give the sources one number of frames, or set train.turns=alternate")


class TwoTowersConfig(RunConfig):
    """A video encoder and a text encoder (:mod:`regionvlp.systems.two_towers`)."""

    model: TowerSettings
    loss: LossSettings = LossSettings()

    @property
    def counts_padding(self) -> bool:
        return self.loss.counts_padding

    def check_sizes(self) -> None:
        super().check_sizes()
        video, text = self.model.video, self.model.text
        if self.most_frames > video.frames:
            message = f"{self.most_frames} frames do not fit model.video.frames {video.frames}"
            raise ConfigError(message, f"set model.video.frames={self.most_frames}")
        if self.data.text_length > text.max_length:
            message = f"data.text_length {self.data.text_length} does not fit model.text.max_length {text.max_length}"
            raise ConfigError(message, f"set model.text.max_length={self.data.text_length}")
        self._check_negatives()

    def _check_negatives(self) -> None:
        """Groups must lie within one part of a batch, since a part is all that is computed at a time."""
        group, parts = self.loss.contrasts, self.train.accumulate
        if group == "global":
            return
        for size in self.batch_sizes:
            part = split_batch(size, 1, parts)
            if part % group:
                raise ConfigError(
                    f"loss.negatives.group {group} does not divide the {part} pairs that are contrasted at a time "
                    f"(a batch of {size} / train.accumulate {parts})",
                    "choose batch sizes, parts and a group that divide",
                )
        if group < 2:
            raise ConfigError(
                "loss.negatives.group 1: a contrast of one pair learns nothing", "set loss.negatives.group to 2 or more"
            )


class DemoVLPConfig(TwoTowersConfig):
    """DemoVLP (:mod:`regionvlp.systems.demovlp`)."""

    task: Literal["demovlp"] = "demovlp"
    data: RegionDataSettings = RegionDataSettings()
    model: DualEncoderSettings = DualEncoderSettings()

    def check_sizes(self) -> None:
        clips, video = self.data.clips, self.model.video
        if clips.loc_dim != video.loc_dim:
            message = f"data.clips.loc_dim {clips.loc_dim} is not model.video.loc_dim {video.loc_dim}"
            raise ConfigError(message, "make them equal")
        self._check_padding()
        super().check_sizes()

    def _check_padding(self) -> None:
        """A loss that counts padding is one function only if every batch is padded alike."""
        region_word = self.loss.region_word
        if not self.counts_padding:
            return
        valid = "or count valid tokens alone (loss.region_word.threshold_count, query_mean, query_norm)"
        if not self.data.pad_text:
            message = "loss.region_word counts padding, but data.pad_text is off: each batch would be another function"
            raise ConfigError(message, f"set data.pad_text=true, {valid}")
        if region_word.reads_padding and self.data.clips.padding != "edge":
            message = f"loss.region_word reads padded regions, but data.clips.padding is {self.data.clips.padding}"
            raise ConfigError(f"{message}, not what the public code pads with", f"set data.clips.padding=edge, {valid}")


class FrozenConfig(TwoTowersConfig):
    """Frozen in Time, alone or with a token loss over patches (:mod:`regionvlp.systems.frozen`)."""

    task: Literal["frozen"] = "frozen"
    data: PixelDataSettings = PixelDataSettings()
    model: PixelDualEncoderSettings = PixelDualEncoderSettings()
    loss: GlobalLossSettings = GlobalLossSettings()

    def check_sizes(self) -> None:
        clips, video = self.data.clips, self.model.video
        if clips.size != video.size:
            message = f"data.clips.image_size {clips.image_size} is not model.video.image_size {video.image_size}"
            raise ConfigError(message, "make them equal")
        if self.counts_padding:
            message = "loss.region_word counts padding, and clips of pixels have none to count"
            raise ConfigError(message, "count valid tokens alone (loss.region_word.form=paper)")
        super().check_sizes()


RUN_CONFIGS: dict[str, type[RunConfig]] = {"demovlp": DemoVLPConfig, "frozen": FrozenConfig}


def run_config(*layers: Mapping[str, Any], source: str = "the configuration") -> RunConfig:
    """Validates the layers, later ones winning, as the configuration of the system that ``task`` names.

    Args:
        layers: nested mappings, of this or an older version's form: a YAML file, then command-line options.
        source: what to call the whole in an error.

    Raises:
        ConfigError: one line naming the first offending key and, where another system has it, that system.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, _upgraded(layer, source))
    task = values.get("task", "demovlp")
    if not isinstance(task, str) or task not in RUN_CONFIGS:
        hint = nearest(str(task), RUN_CONFIGS) or f"systems: {', '.join(RUN_CONFIGS)}"
        raise ConfigError(f"no system '{task}' for 'task' in {source}", hint)
    config = validate(RUN_CONFIGS[task], _without_local(values, source), source, elsewhere=_systems_with)
    config.staged(source)  # their mistakes are the file's
    return config


def read_run_config(path: Path) -> RunConfig:
    """The configuration in a file such as ``RUN/config.yaml``.

    Raises:
        InputError, ConfigError: it cannot be read, or is none.
    """
    return run_config(read_yaml(path), source=str(path))


def _upgraded(layer: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A layer in today's form."""
    values, data = dict(layer), layer.get("data")
    if not isinstance(data, Mapping):
        return values
    moved = {key: data[key] for key in MOVED_TO_CLIPS if key in data}
    clips = data.get("clips", {})
    if not moved or not isinstance(clips, Mapping):
        return values
    twice = next((key for key in moved if key in clips and clips[key] != moved[key]), None)
    if twice:
        message = f"{source} has data.{twice} = {moved[twice]!r} and data.clips.{twice} = {clips[twice]!r}"
        raise ConfigError(message, f"keep data.clips.{twice}")
    rest = {key: value for key, value in data.items() if key not in moved}
    return values | {"data": rest | {"clips": {**moved, **clips}}}


def _without_local(values: dict[str, Any], source: str) -> dict[str, Any]:
    """Until 0.1.0 ``loss.negatives: local`` contrasted what one process held of a part: now a group of that size.

    How many processes there were no file says; those that run now stand for them.
    """
    loss, train = values.get("loss"), values.get("train", {})
    if not isinstance(loss, Mapping) or loss.get("negatives") != "local" or not isinstance(train, Mapping):
        return values
    settings = validate(TrainSettings, train, source)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    group = max(1, settings.batch_size // (settings.accumulate * processes))
    logger.warning(
        "loss.negatives 'local' of %s is read as {group: %d}, what each of %d processes holds; if there were more when "
        "it was trained, set loss.negatives to what they held",
        source, group, processes,
    )  # fmt: skip
    return values | {"loss": {**loss, "negatives": {"group": group}}}


def _systems_with(key: str) -> list[str]:
    """The systems whose configuration knows a dotted key."""
    return [name for name, config in RUN_CONFIGS.items() if key in known_keys(config)]
