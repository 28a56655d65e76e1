"""Which evaluation was the best so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regionvlp.errors import ConfigError, nearest
from regionvlp.training.settings import TrainSettings


@dataclass(frozen=True)
class Best:
    """The best evaluation: after how many steps, by which metric, and its value."""

    step: int
    metric: str
    value: float


def judged_by(values: Mapping[str, float], name: str | None) -> str:
    """Returns the metric that tells which evaluation is best: the one named, else the first.

    Raises:
        ConfigError: there is none of that name.
    """
    assert values, "the evaluation returned nothing"
    if name is None:
        return next(iter(values))
    if name not in values:
        hint = nearest(name, values) or f"it returns {', '.join(values)}"
        raise ConfigError(f"train.best_metric: the evaluation returns no '{name}'", hint)
    return name


def better(best: Best | None, step: int, values: Mapping[str, float], train: TrainSettings) -> Best | None:
    """Returns the better of ``best`` and the evaluation after ``step``; the earlier of two equal ones; never NaN."""
    name = judged_by(values, train.best_metric)
    value, sign = float(values[name]), -1 if train.best_is == "lowest" else 1
    if value != value:
        return best
    if best is None or best.metric != name or sign * (value - best.value) > 0:
        return Best(step, name, value)
    return best
