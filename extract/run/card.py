"""The dataset card: ``README.md`` in a shard folder, so that whoever finds the folder knows what it is.

In: a folder. Out: Markdown that depends on what the folder holds and on nothing else, with a digest of itself in its
last line: a card that somebody wrote into is theirs, and is never written over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.shards import Manifest, Receipt, ShardReader, inspect, read_receipts
from regionvlp.store.files import replacing
from regionvlp.store.markdown import table

CARD_NAME = "README.md"

# The histograms are of a sample of the videos: spread over the folder, and small beside the features.
_SHARDS, _VIDEOS = 48, 96
_BAR = 40
_DIGEST = re.compile(r"<!-- regionvlp card ([0-9a-f]{64}) -->\n\Z")


def write_card(folder: Path) -> bool:
    """Writes or refreshes the card of a folder, whole or not at all.

    Returns:
        False where somebody edited the card, which is then left as it is.

    Raises:
        InputError: there is no such folder. ShardError: it is not a shard folder, or a file of it is damaged.
    """
    path = folder / CARD_NAME
    text = card_text(folder)
    try:
        there = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        there = None
    except UnicodeDecodeError:
        return False
    if there is not None and not _is_ours(there):
        return False
    if there != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return True


def card_text(folder: Path) -> str:
    """The card of a folder; see :func:`write_card`."""
    text = "\n".join(_lines(folder)) + "\n\n"
    return f"{text}<!-- regionvlp card {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def _is_ours(text: str) -> bool:
    match = _DIGEST.search(text)
    return match is not None and hashlib.sha256(text[: match.start()].encode()).hexdigest() == match[1]


def _lines(folder: Path) -> Iterator[str]:
    summary, manifest = inspect(folder), Manifest.read(folder)
    detector = manifest.detector
    where, licence = _provenance(detector)
    receipts = list(read_receipts(folder))
    yield "---"
    yield "license: unknown  # of the videos, and so of these features: fill in before you pass them on"
    yield "tags: [video, region-features]"
    yield "---"
    yield ""
    yield "# Region features of videos"
    yield ""
    yield f"{summary['videos']:,} videos, {summary['frames']:,} frames, {summary['regions']:,} regions;"
    yield f"{summary['bytes']:,} bytes in {summary['shards_done']:,} shards."
    yield ""
    yield "## Reading them"
    yield ""
    yield "```python"
    yield "import regionvlp"
    yield 'shards = regionvlp.open_shards(".")  # this folder'
    yield "video = shards[shards.video_ids[0]]  # .features [F, R, C], .boxes [F, R, 4], .scores, .class_ids ..."
    yield "```"
    yield from _with_pandas(manifest, receipts)
    yield ""
    yield "## What they are"
    yield ""
    yield from table(
        {
            "format": f"{manifest.format}, features {manifest.dtype}",
            "frames of a video": f"up to {manifest.frames}, {manifest.video.get('sampling', 'as they came')}",
            "regions of a frame": f"up to {manifest.regions}, {manifest.feature_width} numbers each",
            "videos planned": _count(summary["videos_planned"]),
            "videos failed": _count(summary["failed"]),
            "videos used in part": _count(summary["partial"]),
        }
    )
    yield ""
    yield "## Where they come from"
    yield ""
    yield from table(
        {
            "videos": "(fill in: name, version and address of the data set)",
            "licence of the videos": "(fill in)",
            "detector": _text(detector.get("name"), detector.get("family")),
            "weights": f"sha256 {detector['weights']}" if detector.get("weights") else "unknown",
            "weights came from": where,
            "licence of the weights": licence,
            "precision": _text(detector.get("precision")),
            "preprocessing": _text(detector.get("input")),
            "selection": _text(detector.get("selection")),
            "frames read by": _text(manifest.video),
            "made by": "; ".join(_versions(receipts)) or manifest.created_by,
        }
    )
    if summary["failures"]:
        yield ""
        yield "## Videos that failed"
        yield ""
        yield "They have no rows; `regionvlp status . --failures` names each of them."
        yield ""
        yield from table({reason: f"{count:,}" for reason, count in summary["failures"].items()})
    yield from _histograms(folder, receipts)


def _with_pandas(manifest: Manifest, receipts: list[Receipt]) -> Iterator[str]:
    """How a Parquet shard is read without this library."""
    names = [receipt.file for receipt in receipts if receipt.file is not None]
    kinds = {"float16": "<f2", "float32": "<f4"}
    if manifest.format != "parquet" or manifest.dtype not in kinds or not names:
        return
    yield ""
    yield "Without regionvlp, a row is a video; `features_k` are the bytes of its frame k, the rest lists of numbers:"
    yield ""
    yield "```python"
    yield "import numpy, pandas"
    yield f'table = pandas.read_parquet("{names[0]}", columns=["video_id", "num_frames", "boxes", "features_0"])'
    shape = f"{manifest.regions}, {manifest.feature_width}"
    yield f'first = numpy.frombuffer(table.features_0[0], "{kinds[manifest.dtype]}").reshape({shape})'
    yield "```"


def _provenance(detector: dict[str, Any]) -> tuple[str, str]:
    """Where the weights of a named detector were handed out and under which licence, as far as that is known."""
    if detector.get("family") is not None:  # one of ours, not one of the user's own
        from regionvlp.extract.detector.catalogue import ENTRIES

        entry = ENTRIES.get(str(detector.get("name")))
        if entry is not None:
            return entry.where, entry.licence
    return "(fill in)", "(fill in)"


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"


def _text(*values: object) -> str:
    said = [value if isinstance(value, str) else json.dumps(value) for value in values if value is not None]
    return ", ".join(said) or "unknown"


def _versions(receipts: list[Receipt]) -> list[str]:
    """Each set of versions that took part, once."""
    sets = {", ".join(f"{name} {version}" for name, version in receipt.versions.items()) for receipt in receipts}
    return sorted(sets)


def _histograms(folder: Path, receipts: list[Receipt]) -> Iterator[str]:
    counts, scores, videos, whole = _sample(folder, receipts)
    if not len(counts):
        return
    of = "all videos" if whole else f"a sample of {videos:,} videos"
    yield ""
    yield f"## Regions of a frame ({of})"
    yield ""
    stop = int(counts.max()) + 1
    edges = np.linspace(0, stop, min(stop, 10) + 1).astype(np.int64)
    yield from _bars(np.histogram(counts, edges)[0], edges, "d")
    yield ""
    yield f"## Scores of regions ({of})"
    yield ""
    yield from _bars(*np.histogram(scores, 10, (0.0, 1.0)), ".1f")


def _bars(counts: NDArray[Any], edges: NDArray[Any], form: str) -> Iterator[str]:
    """A histogram as text: lower edge, share, bar."""
    total = max(int(counts.sum()), 1)
    yield "```"
    for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True):
        last = high - 1 if form == "d" else high
        label = format(low, form) if low == last else f"{low:{form}} to {last:{form}}"
        bar = "#" * round(_BAR * count / max(counts.max(), 1))
        yield f"{label:>12} {100 * count / total:5.1f} % {bar}".rstrip()
    yield "```"


def _sample(folder: Path, receipts: list[Receipt]) -> tuple[NDArray[np.int64], NDArray[np.float32], int, bool]:
    """Regions of each sampled frame, scores of their regions, how many videos, and whether that is all of them."""
    manifest = Manifest.read(folder)
    filled = [receipt for receipt in receipts if receipt.file is not None]
    counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    videos = 0
    for receipt in filled[:: max(1, -(-len(filled) // _SHARDS))]:
        reader = ShardReader(folder, shards=[receipt.shard], checksums=False)
        rows = np.arange(0, receipt.videos, -(-receipt.videos // _VIDEOS))
        videos += len(rows)
        frames = reader.num_frames_of(rows)
        slots = np.concatenate([np.arange(count) for count in frames])
        into = reader.read_columns(("num_regions", "scores"), np.repeat(rows, frames), slots[:, None])
        number = into["num_regions"][:, 0]
        counts.append(number.astype(np.int64))
        scores.append(into["scores"][:, 0][np.arange(manifest.regions) < number[:, None]])
    return np.concatenate(counts), np.concatenate(scores), videos, videos == sum(r.videos for r in filled)
