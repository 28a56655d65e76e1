"""Whether the quotation marks of a separated text are those of its format, or belong to the text.

Arrow's reader takes what it finds: a quote that is never closed swallows the rows up to the next one, without a word.
So the bytes are looked at as they pass, all quotes of a piece at once: within a well-formed file every other quote
opens a field and the next one closes it.
"""

from __future__ import annotations

import csv
import io
from typing import IO, Any

import numpy as np

from regionvlp.errors import InputError

_QUOTE = 0x22
_LONGEST = csv.field_size_limit()  # 131,072 characters
_LENGTH_HINT = "two rows grown together by a quotation mark that is never closed, or a transcript: mend or cut it"


class QuoteCheck(io.RawIOBase):
    """A file whose quotes are followed while it is read.

    Args:
        file: where the bytes come from.
        separator: between the fields.

    Attributes:
        strict: whether every quote seen so far opens or closes a field, or is one of a doubled pair.
    """

    def __init__(self, file: IO[bytes], separator: str) -> None:
        self._file = file
        self._edges = np.zeros(256, bool)
        self._edges[[ord(separator), *b"\r\n", _QUOTE]] = True
        self._before = ord("\n")  # the byte before what is held
        self._held = b""  # the last byte, which cannot be judged without its successor
        self._quotes = 0
        self.strict = True

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._feed(data)
        return data

    def well_formed(self) -> bool:
        """The verdict, once all is read."""
        self._feed(b"\n")
        return self.strict and self._quotes % 2 == 0

    def _feed(self, data: bytes) -> None:
        if not data or not self.strict:
            return
        text = np.frombuffer(bytes([self._before]) + self._held + data, np.uint8)
        places = np.flatnonzero(text[1:-1] == _QUOTE) + 1
        opening = (self._quotes + np.arange(len(places))) % 2 == 0
        neighbour = np.where(opening, text[places - 1], text[places + 1])
        self.strict = bool(self._edges[neighbour].all())
        self._quotes += len(places)
        self._before, self._held = int(text[-2]), text[-1:].tobytes()


def refuse_stray_quotes(file: IO[bytes], separator: str, path: str) -> None:
    """Reads a whole text by the letter of the format, to find the row at which it leaves it.

    Raises:
        InputError: a quoted field is not closed, or goes on after its closing quote; or a field is longer than any.
    """
    reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=separator, strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        raise quote_error(error, path, reader.line_num) from None


def quote_error(error: Exception, path: str, line: int) -> InputError:
    """One line for what Python's reader says of a row."""
    if "limit" in str(error):
        return too_long(path, f"line {line}")
    return InputError(
        f"{path}, line {line}: {error}", "put a caption that begins with a quote into quotes, and double it"
    )


def too_long(path: str, place: str, length: int | None = None) -> InputError:
    """What to say of a cell that is longer than any caption."""
    words = f"of {length:,} characters" if length else f"longer than {_LONGEST:,} characters"
    return InputError(f"{path}, {place}: a field {words}", _LENGTH_HINT)


def longest() -> int:
    """Characters that a field may have."""
    return _LONGEST


def records(text: str, separator: str, most: int, path: str, *, quoted: bool = True) -> list[list[str]]:
    """The first rows of a text, blank ones left out.

    Raises:
        InputError: a field is longer than any.
    """
    options: dict[str, Any] = {} if quoted else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, **options)
    found: list[list[str]] = []
    try:
        for row in rows:
            if row:
                found.append(row)
            if len(found) == most:
                break
    except csv.Error as error:
        raise quote_error(error, path, rows.line_num) from None
    return found
