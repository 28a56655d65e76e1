"""Cleaning a data set with an index of it: near-duplicates, and captions that do not fit their videos.

In: an opened index, captions. Out: rows, each with what is best done with it.
Shape letters: N clips, Q captions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from regionvlp.search.evaluate import gallery
from regionvlp.search.index import Index
from regionvlp.search.moments import SAME_LOOK
from regionvlp.search.segment import LOOK_BITS

_BANDS = SAME_LOOK + 1  # of so many parts of the bits, one at least is equal in copies
_AT_ONCE = 256  # captions that are ranked together
Action = Literal["keep", "drop"]


@dataclass(frozen=True)
class DuplicateRow:
    """A file with copies.

    Attributes:
        group: files of a group show the same, from 1. video_id: the file.
        start, end: the stretch of it that is like another file's, seconds. share: of its clips that are.
        action: ``keep`` for one of each group: that with the most clips, of equal ones the first by name.
    """

    group: int
    video_id: str
    start: float
    end: float
    share: float
    action: Action


@dataclass(frozen=True)
class PairRow:
    """A caption with its video.

    Attributes:
        video_id, caption: the pair.
        agreement: share of the other files that the caption fits less well, 0 to 1; chance is 0.5.
        rank: of its file among all, 1 for the best; equal ones share the mean of theirs.
        action: ``drop`` where the agreement is too small.
    """

    video_id: str
    caption: str
    agreement: float
    rank: float
    action: Action


def duplicates(index: Index, least: float = 0.5) -> list[DuplicateRow]:
    """Files that show the same as others, group by group, those of most files first.

    Two clips are copies where they look alike (64 bits of brightness) and mean the same to the encoders.

    Args:
        least: files count from this share of their clips on that are copies of the other's, to 1.
    """
    ids = index.clips.column("video_id").to_pylist()
    rows = np.flatnonzero(index.live).tolist()
    number_of: dict[str, int] = defaultdict(int)
    for row in rows:
        number_of[ids[row]] += 1
    copied: dict[tuple[str, str], set[int]] = defaultdict(set)  # clips of the first that are in the second
    for row, copy in _copies(index, rows, ids):
        copied[ids[row], ids[copy]].add(row)
        copied[ids[copy], ids[row]].add(copy)
    leader = {name: name for name in number_of}

    def first(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for (name, like), clips in copied.items():
        if len(clips) / number_of[name] >= least:
            leader[max(first(name), first(like))] = min(first(name), first(like))
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(number_of):
        groups[first(name)].append(name)
    many = sorted((group for group in groups.values() if len(group) > 1), key=lambda group: (-len(group), group))
    return [row for number, group in enumerate(many, 1) for row in _rows(index, number, group, number_of, copied)]


def _rows(
    index: Index,
    number: int,
    group: Sequence[str],
    number_of: dict[str, int],
    copied: dict[tuple[str, str], set[int]],
) -> Iterator[DuplicateRow]:
    kept = min(group, key=lambda name: (-number_of[name], name))
    for name in sorted(group, key=lambda name: (name != kept, name)):
        rows = set().union(*(copied.get((name, other), set()) for other in group))
        clips = [index.clip(row) for row in rows]
        share = len(rows) / number_of[name]
        start, end = min(clip.start for clip in clips), max(clip.end for clip in clips)
        yield DuplicateRow(number, name, start, end, share, "keep" if name == kept else "drop")


def _copies(index: Index, rows: Sequence[int], ids: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of clips of different files that are copies, each once.

    Looks that differ in at most 3 bits are equal in one of four parts, so only clips of one part are compared.
    """
    looks = {row: index.look(row) for row in rows}
    width = LOOK_BITS // _BANDS
    seen: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        buckets: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            buckets[looks[row] >> (band * width) & ((1 << width) - 1)].append(row)
        for bucket in buckets.values():
            array = np.array([looks[row] for row in bucket], np.uint64)
            for k, row in enumerate(bucket[:-1]):
                near = _bits(array[k + 1 :] ^ array[k]) <= SAME_LOOK
                for place in np.flatnonzero(near).tolist():
                    other = bucket[k + 1 + place]
                    if ids[row] != ids[other] and (row, other) not in seen:
                        seen.add((row, other))
                        if index.alike(row, other):
                            yield row, other


def _bits(values: NDArray[np.uint64]) -> NDArray[np.integer]:
    """[n]: how many bits are set in each of [n] numbers."""
    bits: NDArray[np.integer] = np.unpackbits(values.view(np.uint8).reshape(-1, 8), axis=1).sum(1)
    return bits


def rank_pairs(index: Index, pairs: Iterable[tuple[str, str]], least: float = 0.5) -> list[PairRow]:
    """Captions by how well they fit their videos, the worst first.

    Args:
        pairs: (video id as the index calls it, caption). least: pairs that agree less are to be dropped.
    """
    ids, column = gallery(index)
    listed = list(pairs)
    found = []
    for start in range(0, len(listed), _AT_ONCE):
        part = listed[start : start + _AT_ONCE]
        scores = index.rank_all([caption for _, caption in part])
        files = np.full((len(part), len(ids)), -np.inf, np.float32)
        np.maximum.at(files.T, column[index.live], scores[:, index.live].T)
        for (video_id, caption), row in zip(part, files, strict=True):
            agreement, rank = _agreement(row, ids[video_id])
            found.append(PairRow(video_id, caption, agreement, rank, "drop" if agreement < least else "keep"))
    return sorted(found, key=lambda row: (row.agreement, row.video_id, row.caption))


def _agreement(scores: NDArray[np.float32], own: int) -> tuple[float, float]:
    """The share of the others that score less, ties half, and the rank."""
    better, equal = int((scores > scores[own]).sum()), int((scores == scores[own]).sum()) - 1
    others = len(scores) - 1
    return ((others - better - equal) + equal / 2) / others if others else 1.0, 1 + better + equal / 2
