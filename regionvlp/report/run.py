"""The page of a training run: curves, the step timer, metrics over time, and which checkpoint is best and why.

In: a run folder. Out: one HTML file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regionvlp.errors import InputError
from regionvlp.report.page import write_page
from regionvlp.report.plots import CURVE_HEIGHT, CURVE_WIDTH, Curve, Plot, drawn
from regionvlp.training.logbook import LOG, read_log

EVAL, TIME = "eval/", "time/"
_ASIDE = ("step", "epoch")
Lines = Sequence[Mapping[str, Any]]


def is_run(folder: Path) -> bool:
    """Whether a folder is one of a training run."""
    return (folder / LOG).is_file()


def write_run_page(path: Path, run: Path) -> None:
    """Draws the page of a run, finished or not.

    Raises:
        InputError: the run's log or record cannot be read, or holds nothing yet.
    """
    lines = read_log(run)
    if not lines:
        raise InputError(f"{run} has no step in its log yet", "wait until it has")
    record, best = _document(run / "run.json"), _document(run / "checkpoints" / "best.json")
    evaluations = [line for line in lines if any(key.startswith(EVAL) for key in line)]
    metrics = list(dict.fromkeys(key for line in evaluations for key in line if key.startswith(EVAL)))
    write_page(
        path,
        "run.html.j2",
        title=f"Run {run.resolve().name}",
        lead=why_best(best, evaluations),
        facts=_facts(lines, record),
        metrics=[name.removeprefix(EVAL) for name in metrics],
        evaluations=[
            {
                "step": line["step"],
                "best": line["step"] == best.get("step"),
                "numbers": [line.get(name) for name in metrics],
            }
            for line in evaluations
        ],
        plots=[drawn(plot) for plot in plots_of(lines) if any(curve.points for curve in plot.curves)],
        starts=record.get("starts", []),
        config=_text(run / "config.yaml"),
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    )


def why_best(best: Mapping[str, Any], evaluations: Lines) -> str:
    """Which checkpoint is best, in a sentence with its reason."""
    if not evaluations:
        return "It was never evaluated, so no checkpoint is better than another: the last one counts."
    if not best:
        return f"It was evaluated {_times(len(evaluations))}, and no evaluation was finite: no checkpoint is the best."
    name, value = str(best["metric"]), float(best["value"])
    others = [line[EVAL + name] for line in evaluations if line.get(EVAL + name) is not None]
    words = f"{best['checkpoint']} is the best checkpoint: its {name} of {value:.4g} is"
    if len(others) < 2:
        return f"{words} the only one that was measured."
    how = "the lowest" if value <= min(others) < max(others) else "the highest"
    equal = others.count(value)
    tie = f" ({equal} are equal, and the earliest counts)" if equal > 1 else ""
    return f"{words} {how} of {len(others)} evaluations{tie}."


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def plots_of(lines: Lines) -> list[Plot]:
    """Losses share a plot, the parts of a step's time another, the recalls of a direction a third; others are alone."""
    keys = list(dict.fromkeys(key for line in lines for key in line if key not in _ASIDE))
    groups: dict[str, list[str]] = {}
    for key in keys:
        place, _, name = key.rpartition("/")
        if key.startswith(EVAL):
            if name in ("R1", "R5", "R10"):
                groups.setdefault(f"recall, %: {place.removeprefix(EVAL)}", []).append(key)
        elif name.endswith("loss"):
            groups.setdefault("losses", []).append(key)
        elif key.startswith(TIME) and name.endswith("_s") and not name.endswith("per_s"):
            groups.setdefault("seconds of a step", []).append(key)
        else:
            groups.setdefault(key, []).append(key)
    return [Plot(title, [_curve(lines, key) for key in group]) for title, group in groups.items()]


def _curve(lines: Lines, key: str) -> Curve:
    name = key.removeprefix(EVAL).removeprefix(TIME)
    return Curve(name, [(line["step"], line[key]) for line in lines if line.get(key) is not None])


def _facts(lines: Lines, record: Mapping[str, Any]) -> dict[str, str]:
    steps = [line for line in lines if not any(key.startswith(EVAL) for key in line)]
    facts = {"steps": f"{lines[-1]['step']:,}"}
    if record.get("created"):
        facts["begun"] = str(record["created"])
    waited, computed = (sum(line.get(f"time/{name}_s") or 0.0 for line in steps) for name in ("data", "compute"))
    if waited + computed > 0:
        facts["waiting for data"] = f"{100 * waited / (waited + computed):.0f} % of a step's time"
    spoilt = sum(value is None for line in lines for value in line.values())
    if spoilt:
        facts["not finite"] = f"{spoilt:,} values of the log, which the curves leave out"
    return facts


def _document(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", "restore the file, or delete it") from None
    return values if isinstance(values, dict) else {}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "(not there)"
