"""Tables without a header: which column names the videos, and which holds the captions.

Decided by a look at the first rows, not by position: CC3M and DemoVLP write ``caption TAB name``, others the reverse.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from itertools import zip_longest

from regionvlp.data.tables.vocabulary import shown
from regionvlp.errors import InputError
from regionvlp.video.find import IMAGE_SUFFIXES, VIDEO_SUFFIXES

_SUFFIX = "|".join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))
MEDIA = re.compile(rf"(?i).*\.(?:{_SUFFIX})(?:#\d+)?")  # Flickr's token file numbers the captions of a file: a.jpg#0
_NUMBER = re.compile(r"\s*[+-]?\d+(?:\.\d+)?\s*")
_WORD = re.compile(r"[A-Za-z_][\w .-]*")
# a.mp4 0, as UCF101, HMDB51, Kinetics and MMAction2 write lists; without a suffix only where the name has no blank
LABELLED = re.compile(rf"(?i)(?:.*\.(?:{_SUFFIX})|\S+)(?:\s+-?\d+)+\s*")
LABEL = r"(?:\s+-?\d+)+\s*$"
_MOST, _HALF = 0.95, 0.5


def is_header(first: Sequence[str], known: Set[str]) -> bool:
    """Whether a first row names columns: one of the known names is there, and nothing that only a row of data holds."""
    cells = [cell.strip().lower() for cell in first]
    return not known.isdisjoint(cells) and not any(MEDIA.fullmatch(cell) or _is_place(cell) for cell in cells)


def _is_place(cell: str) -> bool:
    """Whether a cell is an address, a path with numbers in it, or a name as CC3M's (``7_1234``)."""
    return "://" in cell or ("/" in cell and any(map(str.isdigit, cell))) or bool(re.fullmatch(r"\d+_\d+", cell))


def roles_of(rows: Sequence[Sequence[str]], path: str) -> dict[str, int]:
    """Which column plays which role (``video`` or ``url``, ``caption``).

    Args:
        rows: the first rows of the table.
        path: for messages.

    Raises:
        InputError: it cannot be told, or the first row seems to be a header of unknown names.
    """
    width = len(rows[0])
    columns = [[cell or "" for cell in column] for column in list(zip_longest(*rows))[:width]]
    roles: dict[str, int] = {}
    video = _video_column(columns, path)
    address = _share(columns[video], r"https?://.+") > _MOST
    roles["url" if address and width > 1 else "video"] = video
    others = [i for i in range(width) if i != video]
    texts = [i for i in others if _share(columns[i], r"(?s).*\S\s+\S.*") >= _HALF]
    if not texts and width == 2 and _share(columns[others[0]], _NUMBER) < _HALF:
        texts = others  # captions of a word each
    if len(texts) == 1:
        roles["caption"] = texts[0]
    _refuse_unknown_header(rows, columns, video, roles.get("caption"), path)
    return roles


def _video_column(columns: list[list[str]], path: str) -> int:
    if len(columns) == 1:
        return 0
    everywhere = range(len(columns))
    for choose in (
        [i for i in everywhere if _share(columns[i][1:] or columns[i], MEDIA) > _MOST],
        [i for i in everywhere if _share(columns[i][1:] or columns[i], r"\S+://.+") > _MOST],
    ):
        if len(choose) == 1:
            return choose[0]
    tight = [i for i in everywhere if _share(columns[i], r"\s*\S+\s*") > _MOST]
    named = [i for i in tight if _share(columns[i], _NUMBER) < _HALF]
    for choose in (named, [i for i in named if _share(columns[i], r".*[\d/_].*") > _HALF], tight):
        if len(choose) == 1:
            return choose[0]
    if len(columns) == 2 and not tight and columns:
        return 1  # names with blanks, where CC3M and DemoVLP have theirs
    raise InputError(
        f"{path} has no header, and which of its {len(columns)} columns names the videos cannot be told",
        "write a header such as path,caption",
    )


def _share(cells: Sequence[str], pattern: str | re.Pattern[str]) -> float:
    """The share of the cells that a pattern fits, of those that are not empty."""
    full = [cell for cell in cells if cell.strip()]
    return sum(bool(re.fullmatch(pattern, cell)) for cell in full) / max(len(full), 1)


def _refuse_unknown_header(
    rows: Sequence[Sequence[str]], columns: list[list[str]], video: int, caption: int | None, path: str
) -> None:
    """Refuses a first row that is unlike all the others, as a header is whose names are not known."""
    first, others = rows[0], columns[video][1:]
    if not others or not all(_WORD.fullmatch(cell.strip()) for cell in first) or MEDIA.fullmatch(first[video]):
        return
    like_files = _share(others, MEDIA) > _MOST
    like_ids = _share(others, r".*[\d/].*") > _MOST and not re.search(r"[\d/]", first[video])
    if caption is not None:
        like_ids = like_ids and not re.search(r"\s", first[caption].strip())
    if like_files or (like_ids and len(first) > 1):
        raise InputError(
            f"{path} has no column that names files or videos (its first row, {shown(first)}, seems to be the header)",
            f"call it path or video_id, or name it: columns video={shown([first[video]])}",
        )
