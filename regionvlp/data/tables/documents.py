"""JSON: objects a line, or one document in the layouts in which captions are handed out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from regionvlp.data.tables.cells import caption_of
from regionvlp.data.tables.guard import Opener, not_text, opened
from regionvlp.data.tables.layouts import rows_of
from regionvlp.data.tables.vocabulary import VOCABULARY, Columns, names_of, normal
from regionvlp.errors import InputError

_ROWS = 1000  # looked at, to tell what is what
_AT_ONCE = 50_000  # rows of which Python's objects are held
_MARK = b"\xef\xbb\xbf"


class Documents:
    """A JSON table; every object may name its fields in its own way.

    Args:
        path: the file.
        opener: opens it.
        columns: the user's names for columns.

    Attributes:
        names: the fields of the first objects, in lower case.
        has_header: True; fields always go by name.

    Raises:
        InputError: the file is not UTF-8, not JSON, or of no layout that is known.
    """

    has_header = True

    def __init__(self, path: str, opener: Opener, columns: Columns) -> None:
        self.path, self._opener = path, opener
        # normalised name -> (rank among the names of its role, role)
        self._wanted: dict[str, list[tuple[int, str]]] = {}
        for role in VOCABULARY:
            for rank, name in enumerate(names_of(role, columns)):
                self._wanted.setdefault(name, []).append((rank, role))
        self._known: dict[str, list[tuple[int, str]]] = {}
        self._document = self._whole()
        first: list[dict[str, Any]] = []
        for _, row in self._rows():
            first.append(row)
            if len(first) == _ROWS:
                break
        self.names = list(dict.fromkeys(normal(name) for row in first for name in row))
        self._first = [self._by_role(row) for row in first]

    def has(self, role: str) -> bool:
        """Whether some of the first objects have a field of a role."""
        return any(role in row for row in self._first)

    def name_of(self, role: str) -> str:
        """The first name of a role that is there."""
        return next((name for name in self.names if any(one == role for _, one in self._wanted.get(name, ()))), role)

    def sample(self, role: str) -> list[Any]:
        """What a role has in the first objects."""
        return [row[role] for row in self._first if role in row]

    def read(self, roles: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """The fields of some roles as text, of captions as lists of text where there are lists.

        Raises:
            InputError: something is not JSON, or a field is neither text nor a number.
        """
        chunks: dict[str, list[pa.Array]] = {role: [] for role in roles}
        held: dict[str, list[Any]] = {role: [] for role in roles}

        def pack() -> None:
            for role in roles:
                try:
                    chunks[role].append(_column(held[role]))
                except (UnicodeEncodeError, pa.ArrowException):
                    raise InputError(f"{self.path} holds text that is no Unicode", "save it as UTF-8") from None
                held[role].clear()

        for place, row in self._rows():
            found = self._by_role(row)
            for role in roles:
                held[role].append(_value(found.get(role), role, f"{self.path}, {place}"))
            if len(held[roles[0]]) >= _AT_ONCE:
                pack()
        if held[roles[0]] or not chunks[roles[0]]:
            pack()
        return {role: _joined(chunks[role]) for role in roles}

    def _by_role(self, row: dict[str, Any]) -> dict[str, Any]:
        """The fields that mean something, by what they mean."""
        found: dict[str, Any] = {}
        ranks: dict[str, int] = {}
        for name, value in row.items():
            if name not in self._known:
                self._known[name] = self._wanted.get(normal(name), [])
            for rank, role in self._known[name]:
                if rank < ranks.get(role, len(VOCABULARY[role]) + 1) and (value is not None or role not in found):
                    found[role], ranks[role] = value, rank
        return found

    def _whole(self) -> list[tuple[str, dict[str, Any]]] | None:
        """The rows of one document; None where there is an object a line."""
        with opened(self.path, self._opener) as file:
            first = b""
            while not first.strip() and (line := file.readline()):
                first = line.removeprefix(_MARK)
            more = bool(file.readline()) if first.strip().startswith(b"{") else False
        if not first.strip():
            raise InputError(f"{self.path} is empty", "expected one object a line, or one document")
        if first.strip().startswith(b"{") and more:
            try:
                json.loads(first)
            except (ValueError, RecursionError):
                pass  # an object over several lines, or a first line that breaks off
            else:
                return None
        elif not first.strip().startswith((b"[", b"{")):
            raise InputError(f"{self.path}, line 1: not a JSON object", 'write {"video_id": ..., "caption": ...}')
        with opened(self.path, self._opener) as file:
            document = self._parse(file.read(), None)
        return list(rows_of(document, self.path, frozenset(self._wanted)))

    def _rows(self) -> Iterable[tuple[str, dict[str, Any]]]:
        return self._document if self._document is not None else self._lines()

    def _lines(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with opened(self.path, self._opener) as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = self._parse(line, number)
                if not isinstance(row, dict):
                    raise InputError(
                        f"{self.path}, line {number}: not a JSON object", 'write {"video_id": ..., "caption": ...}'
                    )
                yield f"line {number}", row

    def _parse(self, text: bytes, line: int | None) -> Any:
        try:
            return json.loads(text.removeprefix(_MARK).decode(), object_pairs_hook=_once if line is None else None)
        except UnicodeDecodeError:
            raise not_text(self.path, self._opener) from None
        except _Twice as error:
            raise InputError(
                f"{self.path}: {error} stands twice in one object", "join the two, or rename one"
            ) from None
        except (ValueError, RecursionError) as error:
            at = getattr(error, "lineno", 1) if line is None else line
            raise InputError(
                f"{self.path}, line {at}: not JSON", "expected one object a line, or one whole document"
            ) from None


class _Twice(Exception):
    """A name that stands twice in one object, of which Python would keep the last."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(repr(next(name for name in names if names.count(name) > 1)))
    return found


def _value(value: Any, role: str, place: str) -> Any:
    """A field as text; None where it is none; of captions also a list of texts.

    Raises:
        InputError: it is something else.
    """
    if role == "caption":
        return _caption(value, place)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        if value != value:  # how pandas writes what is not there
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if role == "times" and isinstance(value, list | dict):
        return json.dumps(value)
    if isinstance(value, dict) and isinstance(value.get("path"), str):  # Hugging Face's pictures and videos
        return value["path"]
    raise InputError(f"{place}: the {role} is a {type(value).__name__}, not text", "write a string")


def _caption(value: Any, place: str) -> Any:
    values = [caption_of(one) for one in value] if isinstance(value, list) else caption_of(value)
    for one in values if isinstance(values, list) else [values]:
        if not isinstance(one, str | None):
            raise InputError(f"{place}: the caption is a {type(one).__name__}, not text", "write a string")
    return values


def _column(values: list[Any]) -> pa.Array:
    if any(isinstance(value, list) for value in values):
        whole = [value if isinstance(value, list) else [value] for value in values]
        return pa.array(whole, pa.list_(pa.string()))
    return pa.array(values, pa.string())


def _joined(chunks: list[pa.Array]) -> pa.ChunkedArray:
    listed = next((chunk.type for chunk in chunks if pa.types.is_list(chunk.type)), None)
    if listed is not None:
        chunks = [
            chunk if chunk.type == listed else pa.array([[x] for x in chunk.to_pylist()], listed) for chunk in chunks
        ]
    return pa.chunked_array(chunks)
