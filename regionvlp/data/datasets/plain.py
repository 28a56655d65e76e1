"""Plain annotation files: any table of :mod:`regionvlp.data.tables` with a column of videos and one of captions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.data.caption_table import Captions
from regionvlp.data.tables import Table, cells, naming, quoting, stretches
from regionvlp.data.tables.guard import reading
from regionvlp.data.tables.stretches import Stretches
from regionvlp.data.tables.vocabulary import shown
from regionvlp.errors import InputError

logger = logging.getLogger(__name__)

_NAMED = 6  # splits that a message lists
_Rows = NDArray[np.int64]


def load_table(path: Path, split: str | None = None, columns: Mapping[str, str] | None = None) -> Captions:
    """Reads the captions of a table.

    Args:
        path: the file.
        split: keep only this part.
        columns: role -> the name of its column, where that is not known.

    Raises:
        InputError: the file cannot be read, has no such columns or split, or lacks videos or captions in more than
            one row of a hundred.
    """
    table = Table(path, columns=columns)
    wanted, timed = naming.roles(table), stretches.roles(table)
    if split is not None and not table.has("split"):
        raise InputError(
            f"{path} has no column that tells splits, so no split '{split}' (it has {shown(table.names)})",
            "leave 'split' out, or name the column: columns split=NAME",
        )
    more = [role for role in ("split", "caption_id") if table.has(role)]
    with reading(str(path)):
        return _captions(table, table.read("caption", *wanted, *more, *timed), wanted, timed, split)


def _captions(
    table: Table, read: Mapping[str, pa.ChunkedArray], wanted: list[str], timed: tuple[str, ...], split: str | None
) -> Captions:
    name = Path(table.path).name
    texts, rows = _texts(table, read["caption"])
    named = {role: read[role] for role in wanted}
    if timed:
        found = stretches.stretches(table, {role: read[role] for role in timed})
        rows, found, order = _by_stretch(found, rows, len(read["caption"]), table.path)
        texts = texts if order is None else texts.take(pa.array(order))
        files, own = (_taken(column, rows) for column in naming.files_of_stretches(table, named))
        ids = naming.stretch_ids(files, found.start, found.end) if own is None else own
        # MSVD calls its clips so: whole seconds, the file's name before them.
        also = [ids, naming.joined(files, "_", _short(found.start), "_", _short(found.end))]
        file = files
    else:
        forms = naming.forms(table, named)
        # Of a folder and a name, the name alone fits the same files, and those of other folders.
        columns = [forms[0][0]] if "folder" in named else [column for form in forms for column in form]
        distinct = [column for i, column in enumerate(columns) if not any(column is one for one in columns[:i])]
        also, file = [_taken(column, rows) for column in distinct], None
    texts, decoded = cells.decoded(texts)
    if decoded:
        logger.info("%s: HTML entities of %d captions were decoded", table.path, decoded)
    empty = naming.is_empty(naming.text_of(texts))
    for column in (also[0], file):
        empty = empty if column is None else empty | naming.is_empty(column)
    if not len(empty) or empty.all():
        message = f"{table.path} holds no captions: {len(empty)} rows without a video or a caption"
        raise InputError(message, "expected a video and a caption a row")
    kept = naming.whole_rows(empty, table.path, "a video or a caption")
    part = naming.text_of(_taken(read["split"], rows)) if "split" in read else None
    chosen = _of_split(part, split, table.path, kept)
    _refuse_too_long(texts, table.path)
    single = rows is None or len(np.unique(rows)) == len(rows)
    given = _taken(read["caption_id"], rows) if "caption_id" in read and single else None
    captions = Captions.build(
        also[0],
        pc.fill_null(texts, ""),
        name,
        split=part if part is not None else "",
        caption_id=None if given is None else naming.text_of(given),
        also=also[1:],
        file=file,
    )
    return captions if chosen is None else captions.take(chosen)


def _texts(table: Table, column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, _Rows | None]:
    try:
        return cells.texts(column)
    except InputError as error:
        raise InputError(f"{table.path}, {error.message}", error.hint) from None


def _by_stretch(
    found: Stretches, rows: _Rows | None, length: int, path: str
) -> tuple[_Rows | None, Stretches, _Rows | None]:
    """Brings captions and stretches together: the table's row of each pair, its stretch, and the caption's place.

    A row with as many captions as stretches pairs them in their order (Panda-70M, ActivityNet); one caption is of all
    its stretches, and several captions of one stretch are each of that.

    Raises:
        InputError: a row has other numbers of the two.
    """
    if found.rows is None:
        if rows is None:
            return None, found, None
        return rows, Stretches(None, found.start[rows], found.end[rows]), None
    rows = np.arange(length) if rows is None else rows
    captions, spans = np.bincount(rows, minlength=length), np.bincount(found.rows, minlength=length)
    bad = (captions != spans) & (captions > 1) & (spans > 1)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(
            f"{path}, row {row + 1} has {captions[row]} captions and {spans[row]} stretches",
            "write a caption for each stretch",
        )
    both = np.where(spans == 0, 0, np.maximum(captions, spans))
    of_row = np.repeat(np.arange(length), both)
    within = np.arange(len(of_row)) - np.repeat(np.cumsum(both) - both, both)
    caption = (np.cumsum(captions) - captions)[of_row] + np.minimum(within, captions[of_row] - 1)
    span = (np.cumsum(spans) - spans)[of_row] + np.minimum(within, spans[of_row] - 1)
    return of_row, Stretches(None, found.start[span], found.end[span]), caption


def _of_split(part: pa.ChunkedArray | None, split: str | None, path: str, kept: _Rows | None) -> _Rows | None:
    """The rows of a split, of those that are kept; None for all.

    Raises:
        InputError: the file names splits, and this is none of them.
    """
    if part is None:
        return kept
    plain = pc.utf8_lower(part)
    if kept is not None:
        plain = plain.take(pa.array(kept))
    counts = {one["values"]: one["counts"] for one in pc.value_counts(plain).to_pylist()}
    names = sorted(name for name in counts if name)
    parts = ", ".join(f"'{name}' ({counts[name]})" for name in names[:_NAMED])
    parts += ", ..." if len(names) > _NAMED else ""
    nameless = counts.get("", 0)
    if split is None:
        if len(names) > 1 or (names and nameless):
            logger.warning(
                "%s: no split was named, and rows of all are read: %s%s",
                *(path, parts, f", {nameless} of none" if nameless else ""),
            )
        return kept
    wanted = split.strip().lower()
    if wanted not in names:
        raise InputError(f"{path} has no split '{split}', only {parts or 'rows that name none'}", "name one of these")
    if nameless:
        logger.warning("%s: %d rows name no split and are left out", path, nameless)
    chosen = np.flatnonzero(np.asarray(pc.equal(plain, wanted)))
    return chosen if kept is None else kept[chosen]


def _refuse_too_long(texts: pa.ChunkedArray, path: str) -> None:
    lengths = pc.fill_null(pc.utf8_length(texts), 0)
    most = pc.max(lengths).as_py() or 0
    if most > quoting.longest():
        raise quoting.too_long(path, f"row {pc.index(lengths, most).as_py() + 1}", most)


def _taken(column: pa.ChunkedArray | None, rows: _Rows | None) -> pa.ChunkedArray | None:
    return column if column is None or rows is None else column.take(pa.array(rows))


def _short(values: NDArray[np.float64]) -> pa.Array:
    """Seconds as short as they can be written; NaN as ``end``."""
    return pa.array(["end" if value != value else f"{value:g}" for value in values.tolist()], pa.string())
