"""What the weights of a checkpoint mean nothing without: tokenizer, detector, and the data that they learnt from.

Data is known by what it holds (pairs, and the checksums of shards), wherever it lies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from regionvlp.data.pairs import Pairs
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, ShardError
from regionvlp.shards.detectors import completed

DETECTOR, DATA = "detector.json", "data.json"


def save_beside_weights(
    folder: Path, tokenizer: TextTokenizer, detector: Mapping[str, Any], data: Mapping[str, Any] | None = None
) -> None:
    """Writes them into a checkpoint's folder; a checkpoint that no run made knows no data."""
    tokenizer.save(folder)
    for name, values in ((DETECTOR, detector), (DATA, data)):
        if values is not None:
            (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def data_of(datasets: Sequence[Pairs], held_out: Pairs | None, stage: int = 0) -> dict[str, Any]:
    """The identities of what a stage of a run reads."""
    return {
        "stage": stage,
        "sources": [dict(data.identity) for data in datasets],
        "eval": dict(held_out.identity) if held_out else None,
    }


def check_data(checkpoint: Path, datasets: Sequence[Pairs], held_out: Pairs | None) -> None:
    """Refuses to go on with other data than a checkpoint's run had.

    Raises:
        InputError: naming the source and what changed.
    """
    try:
        then = json.loads((checkpoint / DATA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # of a version that did not write it; the loaders compare counts
    now = data_of(datasets, held_out)
    for number, (old, new) in enumerate(zip_longest(then["sources"], now["sources"])):
        _check_source(f"data.sources.{number}", old, new)
    _check_source("eval.source", then["eval"], now["eval"])


def stage_of(checkpoint: Path) -> int:
    """The stage of the run that a checkpoint was written in, from 0."""
    try:
        return int(json.loads((checkpoint / DATA).read_text(encoding="utf-8")).get("stage", 0))
    except (OSError, ValueError):
        return 0  # of a version without stages


def _check_source(key: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
    if old is None or new is None:
        what = f"{key} is {'gone' if new is None else 'new'}" if old is not new else ""
    else:
        changed = [name for name in new if name in old and old[name] != new[name]]
        shown = (f"{name} {old[name]} then, {new[name]} now" for name in changed if isinstance(new[name], int))
        what = f"{key}: its {' and '.join(changed)} changed" if changed else ""
        what += f" ({'; '.join(details)})" if (details := list(shown)) else ""
    if what:
        raise InputError(
            f"the data of the run changed: {what}",
            "restore it, or start a new run from the old weights with --set init=...",
        )


def read_detector(folder: Path) -> Mapping[str, Any]:
    """The detector identity that a checkpoint carries; empty where that is not known.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        identity: Mapping[str, Any] = json.loads((folder / DETECTOR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{folder} holds no readable {DETECTOR}", "use a checkpoint as training wrote it") from None
    return identity


def check_detector(known: Mapping[str, Any], found: Mapping[str, Any], complaint: str) -> None:
    """Compares two detector identities.

    Raises:
        ShardError: ``complaint``, with the first field that differs.
    """
    known, found = completed(known), completed(found)
    for key in sorted({*known, *found}):
        if known.get(key) != found.get(key):
            here, there = json.dumps(found.get(key)), json.dumps(known.get(key))
            raise ShardError(f"{complaint}: {key} is {here} there, not {there}", "extract with the same one")
