"""What an ablation found: means and spreads over seeds, and which differences are larger than the spread.

The rule, in full. Runs of one seed see the same batches in the same order, and start from the same weights where those
have the same shapes. So two variants are compared seed by seed: their difference is *beyond the spread* when its mean
over the seeds is larger than its standard deviation (n - 1) over the seeds. With five seeds that is a t of 2.2. Where
the seeds are not the same, the standard deviation is ``sqrt(s_a^2 + s_b^2)``. Fewer than two seeds decide nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from regionvlp.evaluation.tables import paper_ablations

# column -> where its value lies in a run's result
MEASURES: dict[str, tuple[str, ...]] = {
    "R@1": ("t2v", "R1"),
    "R@5": ("t2v", "R5"),
    "R@10": ("t2v", "R10"),
    "MedR": ("t2v", "MedR"),
    "v2t R@1": ("v2t", "R1"),
    "pointing": ("grounding", "accuracy"),
    "of ceiling": ("grounding", "ceiling"),
    "centre": ("grounding", "centre"),
    "s/step": ("step_seconds",),
}
DIGITS = {"s/step": 3}  # after the point; of the other columns one
DECIDED = ("R@1", "pointing")  # what differences are looked for in
PAPER = "paper R@1"
SHORT = ("R@1", "pointing", "s/step")  # what a terminal has room for
NAME = 8  # characters that a variant's name has even there


@dataclass(frozen=True)
class Figure:
    """One column of one variant: seed -> value."""

    by_seed: Mapping[int, float]

    @property
    def count(self) -> int:
        return len(self.by_seed)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed.values())

    @property
    def spread(self) -> float | None:
        """Standard deviation (n - 1); a single value has none."""
        return statistics.stdev(self.by_seed.values()) if self.count > 1 else None

    def text(self, digits: int = 1) -> str:
        """Mean ± spread."""
        return f"{self.mean:.{digits}f}" + ("" if self.spread is None else f" ± {self.spread:.{digits}f}")

    def spread_of_difference(self, other: Figure) -> float | None:
        """Of this figure minus the other one: see the top of the file."""
        if self.spread is None or other.spread is None:
            return None
        if self.by_seed.keys() == other.by_seed.keys():
            return statistics.stdev(value - other.by_seed[seed] for seed, value in self.by_seed.items())
        return math.hypot(self.spread, other.spread)


@dataclass(frozen=True)
class Difference:
    """``higher`` has the larger mean of ``measure``; ``paper`` is by how much the paper has it so, in its R@1."""

    measure: str
    higher: str
    lower: str
    difference: float
    spread: float | None
    beyond: bool
    paper: float | None


def summarise(results: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> dict[str, dict[str, Figure]]:
    """variant -> column -> figure, for the columns that all runs of the variant have.

    Args:
        results: variant -> seed -> what :func:`regionvlp.pipelines.ablate.runs.train_and_measure` returned.
    """
    summary: dict[str, dict[str, Figure]] = {}
    for variant, runs in results.items():
        columns = {name: {seed: _value(run, where) for seed, run in runs.items()} for name, where in MEASURES.items()}
        summary[variant] = {
            name: Figure({seed: value for seed, value in values.items() if value is not None})
            for name, values in columns.items()
            if values and None not in values.values()
        }
    return summary


def differences(summary: Mapping[str, Mapping[str, Figure]]) -> list[Difference]:
    """Every pair of variants in every measure of :data:`DECIDED`, the larger difference first."""
    found = []
    for measure in DECIDED:
        having = [(name, figures[measure]) for name, figures in summary.items() if measure in figures]
        pairs = []
        for i, one in enumerate(having):
            for other in having[i + 1 :]:
                (higher, a), (lower, b) = sorted((one, other), key=lambda pair: -pair[1].mean)
                spread, gap = a.spread_of_difference(b), a.mean - b.mean
                beyond = spread is not None and gap > spread
                paper = _paper_gap(higher, lower) if measure == "R@1" else None
                pairs.append(Difference(measure, higher, lower, gap, spread, beyond, paper))
        found += sorted(pairs, key=lambda pair: -pair.difference)
    return found


def verdicts(summary: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """What the differences say, a line each."""
    found = differences(summary)
    lines = []
    for measure in DECIDED:
        ours = [pair for pair in found if pair.measure == measure]
        for name in dict.fromkeys(pair.higher for pair in ours):
            beyond = [f"{p.lower} (+{p.difference:.1f})" for p in ours if p.higher == name and p.beyond]
            if beyond:
                lines.append(f"{measure}: {name} is above {', '.join(beyond)}")
            within = [p.lower for p in ours if p.higher == name and p.spread is not None and not p.beyond]
            if within:
                lines.append(f"{measure}: {name} is within the spread of {', '.join(within)}")
        if not ours:
            continue
        if all(pair.spread is None for pair in ours):
            lines.append(f"{measure}: one seed says nothing about the spread; give --seeds")
    counts = [figures[measure].count for figures in summary.values() for measure in DECIDED if measure in figures]
    if 2 in counts and any(pair.spread is not None for pair in found):
        lines.append("two seeds: a spread of two values says little; give --seeds 3 or more")
    judged = [pair for pair in found if pair.paper and pair.spread is not None]
    if judged:
        same = sum(pair.beyond and (pair.paper or 0) > 0 for pair in judged)
        turned = sum(pair.beyond and (pair.paper or 0) < 0 for pair in judged)
        lines.append(
            f"the paper's order of R@1: {same} of {len(judged)} pairs so here, {turned} the other way round, "
            f"{len(judged) - same - turned} within the spread"
        )
    return lines


def rows(
    summary: Mapping[str, Mapping[str, Figure]], measures: Iterable[str] = tuple(MEASURES)
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: a row per variant, and the paper's R@1 beside it where the paper has it."""
    paper = paper_ablations()
    columns = [name for name in measures if any(name in figures for figures in summary.values())]
    beside = any(name in paper for name in summary)
    cells = []
    for name, figures in summary.items():
        known = paper.get(name)
        cells.append(
            [
                name,
                str(max((f.count for f in figures.values()), default=0)),
                *(figures[key].text(DIGITS.get(key, 1)) if key in figures else "" for key in columns),
                *([f"{known['R1']:.1f}" if known else ""] if beside else []),
            ]
        )
    return ["variant", "seeds", *columns, *([PAPER] if beside else [])], cells


def terminal_table(summary: Mapping[str, Mapping[str, Figure]], title: str, width: int = 80) -> Table:
    """:func:`rows` for a terminal ``width`` characters wide, the columns that matter most.

    Where it is narrow the names fold, and no figure is ever cut.
    """
    headings, cells = rows(summary, SHORT)
    figures = [max(map(len, column)) for column in zip(headings[1:], *(row[1:] for row in cells), strict=True)]
    least = NAME + sum(figures) + 3 * len(headings) + 1  # with the padding
    table = Table(title=title, title_justify="left", box=SIMPLE, width=least if least > width else None)
    table.add_column(headings[0], overflow="fold")
    for heading, size in zip(headings[1:], figures, strict=True):
        table.add_column(heading, justify="right", no_wrap=True, min_width=size)
    for row in cells:
        table.add_row(*row)
    return table


def markdown(summary: Mapping[str, Mapping[str, Figure]], conditions: Iterable[str]) -> str:
    """:func:`rows` as a page: the conditions, the table, the verdicts."""
    headings, cells = rows(summary)
    lines = [" | ".join(row) for row in (headings, ["---", *["---:"] * (len(headings) - 1)], *cells)]
    rule = f"{RULE} {PAPER_RULE}" if PAPER in headings else RULE
    says = [f"* {line}" for line in verdicts(summary)]
    return "\n".join([*conditions, "", *(f"| {line} |" for line in lines), "", rule, "", *says]) + "\n"


RULE = (
    "Mean ± standard deviation over seeds. Variants are compared seed by seed: a difference is beyond the spread when "
    "its mean over the seeds is larger than its standard deviation over them."
)
SHORT_RULE = "Beyond the spread: a difference, seed by seed, whose mean is larger than its standard deviation."
PAPER_RULE = "The paper's figures are DemoVLP's tables 4 to 6: MSR-VTT 1k-A, fine-tuned."


def as_json(summary: Mapping[str, Mapping[str, Figure]]) -> dict[str, Any]:
    """The figures and differences in plain types."""
    return {
        "summary": {
            name: {key: {"mean": f.mean, "spread": f.spread, "count": f.count} for key, f in figures.items()}
            for name, figures in summary.items()
        },
        "differences": [asdict(pair) for pair in differences(summary)],
    }


def _value(run: Mapping[str, Any], where: tuple[str, ...]) -> float | None:
    value: Any = run
    for key in where:
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _paper_gap(higher: str, lower: str) -> float | None:
    paper = paper_ablations()
    return paper[higher]["R1"] - paper[lower]["R1"] if higher in paper and lower in paper else None
