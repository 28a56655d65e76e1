"""What stands in the cells of captions: one text or several, with HTML entities as the web writes them."""

from __future__ import annotations

import ast
import html
import io
import json
import re
import tokenize
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from regionvlp.errors import InputError

# ['a', 'b'] as Python, JSON and NumPy print lists of texts; a caption such as "[music] a man" is none.
_LIST = r"(?s)^\s*\[\s*(?:\[\s*)?[\"'].*[\"']\s*(?:\]\s*)?\]\s*$"
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_BETWEEN = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)  # no texts
_WORDS = ("raw", "caption", "sentence", "text")  # of a caption that is an object (Karpathy)


def texts(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, NDArray[np.int64] | None]:
    """The captions of a column, one a row.

    Args:
        values: text, of which some may print lists of texts; or lists of text.

    Returns:
        The captions, and the row of ``values`` that each comes from; None where every row is one caption.

    Raises:
        InputError: a cell looks like a list and is none.
    """
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        # An empty or absent list is a row without a caption, not no row.
        flat, rows = pc.list_flatten(values), pc.list_parent_indices(values)
        lacking = np.setdiff1d(np.arange(len(values)), np.asarray(rows))
        if not len(lacking):
            return _chunked(flat), np.asarray(rows, dtype=np.int64)
        places = np.concatenate([np.asarray(rows, dtype=np.int64), lacking])
        whole = pa.chunked_array([*_chunked(flat).chunks, pa.nulls(len(lacking), pa.string())], pa.string())
        order = np.argsort(places, kind="stable")
        return whole.take(pa.array(order)), places[order]
    listed = pc.fill_null(pc.match_substring_regex(values, _LIST), False)
    if not pc.any(listed).as_py():
        return values, None
    rows_listed = np.flatnonzero(np.asarray(listed))
    printed = values.filter(listed).to_pylist()
    parsed = [_list_of(text, int(row)) for row, text in zip(rows_listed, printed, strict=True)]
    counts = np.ones(len(values), np.int64)
    counts[rows_listed] = [len(found) for found in parsed]
    rows = np.repeat(np.arange(len(values)), counts)
    # All texts in one column, those of the lists after the others, and then in the order of their rows.
    pool = pa.chunked_array([*values.chunks, pa.array([text for found in parsed for text in found], pa.string())])
    places = rows.copy()
    places[np.isin(rows, rows_listed)] = len(values) + np.arange(sum(map(len, parsed)))
    return pool.take(pa.array(places)), rows


def decoded(captions: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Captions with their HTML entities (``&amp;``, ``&#39;``) decoded, and how many held some."""
    hit = pc.fill_null(pc.match_substring_regex(captions, _ENTITY.pattern), False)
    count = pc.sum(hit).as_py() or 0
    if not count:
        return captions, 0
    plain = [_ENTITY.sub(lambda found: html.unescape(found.group()), text) for text in captions.filter(hit).to_pylist()]
    # Those without any keep their places; the others lie behind them.
    places = np.arange(len(captions))
    places[np.flatnonzero(np.asarray(hit))] = len(captions) + np.arange(len(plain))
    pool = pa.chunked_array([*captions.chunks, pa.array(plain, captions.type)])
    return pool.take(pa.array(places)), count


def caption_of(value: Any) -> Any:
    """A caption in JSON as text: of an object what it says, of a list of words the sentence."""
    if isinstance(value, dict):
        found = next((value[name] for name in _WORDS if isinstance(value.get(name), str)), None)
        if found is None and isinstance(value.get("tokens"), list):
            return caption_of(value["tokens"])
        return value if found is None else found
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return " ".join(value)
    return value


def _chunked(values: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    found = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    return found.cast(pa.string())


def _list_of(text: str, row: int) -> list[str | None]:
    """The texts of a printed list.

    Raises:
        InputError: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _printed(text)
    if isinstance(found, list) and len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise InputError(f"row {row + 1}: {shown!r} looks like a list of captions and is none", "write ['one', 'two']")
    return found or [None]


def _printed(text: str) -> list[str] | None:
    """The texts of a list as Python or NumPy print it; NumPy leaves the commas out, and Python would join the texts."""
    found: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text.strip()).readline):
            if token.type == tokenize.STRING:
                value = ast.literal_eval(token.string)
                if not isinstance(value, str):
                    return None
                found.append(value)
            elif token.type == tokenize.OP:
                if token.string not in "[],":
                    return None
            elif token.type not in _BETWEEN:
                return None
    except (tokenize.TokenError, SyntaxError, ValueError, IndentationError):
        return None
    return found
