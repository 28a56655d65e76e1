"""What the weights of a checkpoint mean nothing without: its tokenizer, and which detector its regions came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError, ShardError

DETECTOR = "detector.json"


def save_beside_weights(folder: Path, tokenizer: TextTokenizer, detector: Mapping[str, Any]) -> None:
    """Writes both into a checkpoint's folder."""
    tokenizer.save(folder)
    (folder / DETECTOR).write_text(json.dumps(detector, indent=2) + "\n", encoding="utf-8")


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
    for key in sorted({*known, *found}):
        if known.get(key) != found.get(key):
            here, there = json.dumps(found.get(key)), json.dumps(known.get(key))
            raise ShardError(f"{complaint}: {key} is {here} there, not {there}", "extract with the same one")
