"""From ranked clips to answers: windows of one moment are one answer, and copies of a clip are told once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from regionvlp.search.clips import Clip

# A neighbour makes a moment longer from this share of its score on, counted from the worst clip looked at.
NEIGHBOUR = 0.5
SAME_LOOK = 3  # bits of 64 in which copies may differ

Look = Callable[[int], int]
Alike = Callable[[int, int], bool]


@dataclass
class Moment:
    """An answer.

    Attributes:
        row: the clip that ranks best in it. video_id: its file.
        start, end: seconds from the file's first frame.
        score: of that clip.
        rows: all clips that it is made of.
        copies: other moments that look the same.
    """

    row: int
    video_id: str
    start: float
    end: float
    score: float
    rows: list[int] = field(default_factory=list)
    copies: list[Moment] = field(default_factory=list)


def moments(ranked: Iterable[tuple[int, float, Clip]], worst: float) -> list[Moment]:
    """Joins windows that overlap a better one of the same file.

    A window that overlaps the best window of a moment belongs to it, and makes it longer where it is good as well; so a
    moment is at most three windows long, however long the stretch is in which everything fits.

    Args:
        ranked: row, score and clip, best first. worst: the score that counts as none.
    """
    found: list[Moment] = []
    best: dict[str, list[tuple[Moment, Clip]]] = {}
    for row, score, clip in ranked:
        mine = next((m for m, seed in best.get(clip.video_id, ()) if _overlap(seed, clip)), None)
        if mine is None:
            moment = Moment(row, clip.video_id, clip.start, clip.end, score, [row])
            found.append(moment)
            best.setdefault(clip.video_id, []).append((moment, clip))
            continue
        mine.rows.append(row)
        if score - worst >= NEIGHBOUR * (mine.score - worst):
            mine.start, mine.end = min(mine.start, clip.start), max(mine.end, clip.end)
    return found


def _overlap(one: Clip, other: Clip) -> bool:
    # Two pictures of one name are the same picture, though no time passes in them.
    return (one.start, one.end) == (other.start, other.end) or (one.start < other.end and other.start < one.end)


def without_copies(found: Sequence[Moment], look: Look, alike: Alike, wanted: int) -> list[Moment]:
    """Folds moments into a better one that looks the same, until ``wanted`` different ones are found.

    Copies must look alike and mean alike: labels alone are the same for many clips, and looks for many dark ones.

    Args:
        found: best first. look: 64 bits of a row's looks. alike: whether two rows mean the same.
    """
    kept: list[Moment] = []
    for moment in found:
        bits, row = look(moment.row), moment.row
        near = (k for k in kept if (look(k.row) ^ bits).bit_count() <= SAME_LOOK)
        original = next((k for k in near if alike(k.row, row)), None)
        if original is not None:
            original.copies.append(moment)
            continue
        if len(kept) == wanted:
            break
        kept.append(moment)
    return kept
