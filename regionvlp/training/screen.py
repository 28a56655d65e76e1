"""What a run shows of itself on the terminal: a bar, a line of figures below it, and a sentence for what happens.

In: what the trainer logs, measures and saves. Out: standard error, of the main process alone; one summary a run.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from regionvlp.progress import ProgressBar
from regionvlp.training.best import Best

SHOWN = 4  # metrics of an evaluation that get into its sentence
_RECALL = re.compile(r"\bR(\d+)$")
logger = logging.getLogger(__name__)


class Screen:
    """The terminal of a run; a process that is not the main one has a silent one.

    Args:
        speaks: whether this is the main process.
    """

    def __init__(self, speaks: bool) -> None:
        self._speaks = speaks
        self._stack = ExitStack()
        self._bar: ProgressBar | None = None
        self._total = 0
        self._figures: dict[str, str] = {}

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar = None
        self._stack.close()

    def begin(self, step: int, total: int, best: Best | None) -> None:
        """Shows the bar, ``step`` steps of ``total`` being done."""
        self._total = total
        if self._speaks:
            self._bar = self._stack.enter_context(ProgressBar("train", "steps", "pairs"))
            self._bar.begin(total, step)
            self._note_best(best)

    def advance(self, pairs: int) -> None:
        """Counts a step over ``pairs`` pairs."""
        if self._bar is not None:
            self._bar.advance(1, pairs)

    def logged(self, values: Mapping[str, float]) -> None:
        """Shows the loss, or that of each dataset, and the learning rate, of what goes into the log."""
        losses = [value for name, value in values.items() if name == "loss" or name.endswith("/loss")]
        self._note(loss=f"loss {' / '.join(f'{value:.4g}' for value in losses)}", lr=f"lr {values['lr']:.2g}")

    def evaluated(self, step: int, values: Mapping[str, float], judged: str, best: Best | None) -> None:
        """Says what an evaluation found, ``judged`` being the metric that tells which is best."""
        found = ", ".join(f"{readable(name)} {value:.3g}" for name, value in list(values.items())[:SHOWN])
        if best is not None:
            found += " (best so far)" if best.step == step else f" (best {best.value:.3g} at step {best.step})"
        self._say("step %d: %s", step, found)
        self._note(metric=f"{readable(judged)} {values[judged]:.3g}")
        self._note_best(best)

    def resumed(self, step: int, total: int, path: Path) -> None:
        """Says where a run goes on."""
        self._say("resumed from step %d of %d (%s)", step, total, path)

    def saved(self, step: int, why: str) -> None:
        """Says that a checkpoint was written out of turn."""
        self._say("step %d is saved: %s", step, why)

    def ended(self, step: int, best: Best | None, patience: int | None, spent: str) -> None:
        """Sums the run up.

        Args:
            step: optimizer steps done.
            best: the best evaluation.
            patience: evaluations without a better one after which the run was ended; None where it came to its end.
            spent: what its time was spent on.
        """
        if patience is not None:
            self._say("stopped early: %d evaluations without a better one (train.patience)", patience)
        self._say("trained to step %d of %d: %s", step, self._total, spent)
        if best is not None:
            self._say("best: step %d, %s %.3g", best.step, readable(best.metric), best.value)

    def _say(self, text: str, *values: object) -> None:
        if self._speaks:
            logger.info(text, *values)

    def _note(self, **figures: str) -> None:
        self._figures |= figures
        if self._bar is not None:
            order = ("loss", "metric", "best", "lr")
            self._bar.note(", ".join(self._figures[name] for name in order if name in self._figures))

    def _note_best(self, best: Best | None) -> None:
        if best is not None:
            self._note(best=f"best {best.value:.3g} at {best.step}")


def readable(metric: str) -> str:
    """``t2v/R1`` as ``R@1``, ``v2t/MedR`` as ``v2t MedR``: text to video is what a recall without a direction means."""
    return _RECALL.sub(r"R@\1", metric.removeprefix("t2v/").replace("/", " "))
