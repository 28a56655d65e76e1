"""What a search can see of an index, and what is left lying in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from regionvlp.search.folder import CONTENTS_NAME, MANIFEST_NAME
from regionvlp.search.index import open_index
from regionvlp.search.words import WORDS_NAME, Words


def content(folder: Path) -> dict[str, object]:
    """All that a search can see, by clip: equal for equal indexes, however they came about."""
    index = open_index(folder)
    rows = {}
    for row in np.flatnonzero(index.live):
        segment, inside = index._place(int(row))
        evidence = segment.evidence(inside)
        vectors = [
            segment.array(f"pooled-{k}.npy")[inside].tobytes() for k, r in enumerate(index.manifest.encoders) if r.width
        ]
        rows[segment.clip(inside).clip_id] = (
            segment.clip(inside),
            segment.look(inside),
            segment.thumbnail(inside),
            {name: np.asarray(value).tolist() for name, value in vars(evidence).items()},
            vectors,
        )
    return {
        "rows": rows,
        "words": Words(folder).texts(),
        "presence": index.contents.presence,
        "unread": index.contents.unread,
    }


def differences(wanted: dict[str, object], found: dict[str, object]) -> list[str]:
    """In which of its parts, and at which clips, the content of one index is not that of another."""
    faults = []
    for part, theirs in wanted.items():
        ours = found[part]
        if isinstance(theirs, dict) and isinstance(ours, dict):
            names = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
            faults += [f"{part} of {', '.join(names)}"] if names else []
        elif theirs != ours:
            faults.append(f"{part}: {ours}, not {theirs}")
    return faults


def left_behind(folder: Path) -> list[str]:
    """Names in an index's folder that nobody needs."""
    segments = set(open_index(folder).contents.segments)
    known = segments | {MANIFEST_NAME, CONTENTS_NAME, WORDS_NAME, ".writer", "regions"}
    below = [path.relative_to(folder).as_posix() for path in folder.rglob("*.tmp")]
    return sorted({*(name for name in os.listdir(folder) if name not in known), *below})
