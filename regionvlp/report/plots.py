"""Curves and histograms as the SVG of a page.

In: numbers. Out: what ``plots.html.j2`` and ``retrieval.html.j2`` draw: points in the coordinates of the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CURVE_WIDTH, CURVE_HEIGHT = 420, 160  # pixels of a plot
MOST_POINTS = 1000  # of a curve; of a longer one means are drawn
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_SPLIT = 40  # bars that a histogram has at most


@dataclass(frozen=True)
class Curve:
    """One line of a plot: its name and its points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """One plot with a title and lines."""

    title: str
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Histogram:
    """Counted values: bars from ``low`` to ``high``, and what lies in each."""

    title: str
    low: float
    high: float
    counts: Sequence[int]

    @classmethod
    def of(cls, title: str, values: Sequence[float] | np.ndarray[Any, Any], whole: bool = False) -> Histogram:
        """Counts values in equal steps; ``whole`` numbers get a bar each, as long as there is room."""
        array = np.asarray(values, np.float64)
        if not len(array):
            return cls(title, 0.0, 0.0, ())
        low, high = float(array.min()), float(array.max())
        if whole:
            step = max(1, int(np.ceil((high - low + 1) / _SPLIT)))
            edges = np.arange(low - 0.5, high + step + 0.5, step)
        else:
            edges = np.linspace(low, high, _SPLIT // 2 + 1) if high > low else np.array([low - 0.5, low + 0.5])
        counts, _ = np.histogram(array, edges)
        return cls(title, low, high, counts.tolist())


def drawn(plot: Plot) -> dict[str, Any]:
    """A plot in the coordinates of its SVG, with the ends of both axes."""
    curves = [Curve(curve.name, thinned(curve.points)) for curve in plot.curves]
    points = [point for curve in curves for point in curve.points]
    if not points:
        return {"title": plot.title, "curves": [], "x": (0, 0), "y": (0, 0)}
    (x0, x1), (y0, y1) = ((min(values), max(values)) for values in zip(*points, strict=True))
    y0 = min(y0, 0.0)

    def place(x: float, y: float) -> str:
        across, up = (x - x0) / ((x1 - x0) or 1), (y - y0) / ((y1 - y0) or 1)
        return f"{CURVE_WIDTH * across:.1f},{CURVE_HEIGHT * (1 - up):.1f}"

    lines = [
        {
            "name": curve.name,
            "colour": COLOURS[number % len(COLOURS)],
            "last": curve.points[-1][1] if curve.points else 0.0,
            "path": " ".join(place(x, y) for x, y in curve.points),
        }
        for number, curve in enumerate(curves)
    ]
    return {"title": plot.title, "curves": lines, "x": (x0, x1), "y": (y0, y1)}


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most a thousand points: means of neighbours, the last point kept as it is."""
    if len(points) <= MOST_POINTS:
        return points
    parts = np.array_split(np.asarray(points, np.float64)[:-1], MOST_POINTS - 1)
    return [*((float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts), points[-1]]


def bars(histogram: Histogram) -> dict[str, Any]:
    """A histogram in the coordinates of its SVG: x, y, width and height of each bar."""
    most, width = max(histogram.counts, default=0) or 1, CURVE_WIDTH / max(len(histogram.counts), 1)
    found = [
        {
            "x": round(k * width, 1),
            "y": round(CURVE_HEIGHT * (1 - count / most), 1),
            "width": round(max(width - 1, 0.5), 1),
            "height": round(CURVE_HEIGHT * count / most, 1),
        }
        for k, count in enumerate(histogram.counts)
    ]
    return {
        "title": histogram.title, "bars": found, "low": histogram.low, "high": histogram.high,
        "total": sum(histogram.counts), "most": max(histogram.counts, default=0),
    }  # fmt: skip
