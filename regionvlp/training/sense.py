"""Runs that could learn nothing, or measure nothing, are refused before they begin.

In: a configuration, opened data. Out: a complaint in one line, or warnings in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

from regionvlp.data.captions import overlap
from regionvlp.data.pairs import Pairs
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import ConfigError, InputError, nearest
from regionvlp.evaluation.metrics import LOGGED, SENSE
from regionvlp.training.config import RunConfig
from regionvlp.training.settings import TrainSettings

CHECKED = 20_000  # captions looked at, from the beginning of the table
LOST = 0.5  # share of unlike captions that may become equal when they are cut to length
logger = logging.getLogger(__name__)


def check_settings(config: RunConfig) -> None:
    """What settings alone can tell.

    Raises:
        ConfigError: a contrast of one pair, a metric that no evaluation gives, a "best" against a metric's sense,
            patience with evaluations that never come.
    """
    train = config.train
    if (smallest := min(config.batch_sizes)) // train.accumulate < 2:
        raise ConfigError(
            f"a batch of {smallest} in {train.accumulate} parts: a contrast of one pair learns nothing",
            f"set the batch size to at least {2 * train.accumulate}, or train.accumulate to less",
        )
    best_sense(train)
    if train.patience is not None and (config.evaluated is None or train.eval_every == "never"):
        raise ConfigError(
            f"train.patience {train.patience}: without evaluations no run ends early",
            "set eval.source and train.eval_every, or leave train.patience out",
        )
    if config.evaluated is None and train.eval_every != "never":
        logger.warning("eval.source is not set, so nothing is evaluated and no checkpoint is the best")


def best_sense(train: TrainSettings) -> Literal["highest", "lowest"]:
    """Which value of the metric that "best" is judged by is the better one.

    Raises:
        ConfigError: there is no such metric, or ``best_is`` turns it round.
    """
    name = train.best_metric or LOGGED[0]
    if name not in LOGGED:
        hint = nearest(name, LOGGED) or f"one of {', '.join(LOGGED)}"
        raise ConfigError(f"train.best_metric: no evaluation gives '{name}'", hint)
    sense = SENSE[name.rpartition("/")[2]]
    if train.best_is not in (None, sense):
        raise ConfigError(f"train.best_is={train.best_is}: of {name} the {sense} value is the best", "leave it out")
    return sense


def check_captions(
    datasets: Sequence[Pairs], held_out: Pairs | None, tokenizer: TextTokenizer, config: RunConfig
) -> None:
    """What captions tell: too few unlike ones, ones that are cut, ones that are evaluated as well.

    Raises:
        InputError: there is nothing to tell apart, or only what is cut off tells captions apart.
    """
    for source, data in zip(config.data.sources, datasets, strict=True):
        if len(data.clips.ids) < 2:
            raise InputError(f"{source.captions} has one clip: a contrast of one clip learns nothing", "use more clips")
    for data in (*datasets, *([held_out] if held_out else [])):
        _check_length(data, tokenizer, config.data.text_length)
    for source, data in zip(config.data.sources, datasets, strict=True):
        if held_out is not None and (shared := overlap(data.captions, held_out.captions).warning):
            logger.warning("eval.source and %s: %s", source.captions, shared)


def _check_length(data: Pairs, tokenizer: TextTokenizer, length: int) -> None:
    """Counts captions that lose their end, and those that become equal by it."""
    texts = list(dict.fromkeys(caption.caption for caption in data.captions[:CHECKED]))
    if len(texts) < 2:
        raise InputError("all captions are the same: there is nothing to tell apart", "check the annotations")
    encoded = tokenizer.encode(texts, length + 1)
    cut = int((encoded["attention_mask"].sum(1) > length).sum())
    if not cut:
        return
    unlike = len({tuple(row) for row in encoded["input_ids"][:, : length - 1].tolist()})
    if unlike < LOST * len(texts):
        raise InputError(
            f"data.text_length {length} cuts {cut} of {len(texts)} unlike captions, and only {unlike} of them stay "
            "unlike",
            "raise data.text_length (and model.text.max_length)",
        )
    same = f"; {len(texts) - unlike} become equal to others" if unlike < len(texts) else ""
    logger.warning("data.text_length %d cuts the end of %d of %d unlike captions%s", length, cut, len(texts), same)
