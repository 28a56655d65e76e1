"""The door through which files of tables come in: what libraries raise behind it leaves as one line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import pyarrow as pa

from regionvlp.errors import InputError, first_line

Opener = Callable[[str], IO[bytes]]

# What pyarrow, json, csv, gzip and int() raise about files; pyarrow's own are ValueErrors and the like, but not all.
FOREIGN = (
    *(pa.ArrowException, OSError, EOFError, zlib.error, csv.Error, ValueError, TypeError, LookupError),
    *(ArithmeticError, RecursionError, MemoryError, NotImplementedError, SyntaxError),
)
# How files begin that are no tables. Whoever has such a file is told what it is.
_OTHERS = {
    b"PK\x03\x04": "a zip archive (or an Excel file)",
    b"\xd0\xcf\x11\xe0": "an Excel file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x89HDF": "an HDF5 file",
    b"ARROW1": "an Arrow file",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what a library raises about a file into one line.

    Raises:
        InputError: in place of it.
    """
    try:
        yield
    except FOREIGN as error:
        raise InputError(
            f"{path} cannot be read: {first_line(error)}", "is the file whole, and what its name says?"
        ) from None


def open_local(path: str) -> IO[bytes]:
    """Opens a file of this machine.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from None


@contextmanager
def opened(path: str, opener: Opener) -> Iterator[IO[bytes]]:
    """The content of a file, decompressed where it is gzip.

    Raises:
        InputError: it cannot be opened or read, or is of a kind that is no table.
    """
    with opener(path) as raw, reading(path):
        start = raw.read(8)
        raw.seek(0)
        for mark, kind in _OTHERS.items():
            if start.startswith(mark):
                hint = "save it as UTF-8" if "UTF" in kind else "save it as CSV, Parquet or JSON, or unpack it"
                raise InputError(f"{path} is {kind}, not a table", hint)
        if not start.startswith(_GZIP):
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as plain:
            if plain.peek(4)[:4] == PARQUET:
                yield io.BytesIO(plain.read())  # Parquet is read from its end
            else:
                yield cast(IO[bytes], plain)


def not_text(path: str, opener: Opener) -> InputError:
    """What to say of a text file that is not UTF-8: where it stops being so."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    before = 0
    with opened(path, opener) as file:
        while True:
            piece = file.read(1 << 20)
            held = len(cast(Any, decoder.getstate()[0]))
            try:
                decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                return InputError(f"{path} is not UTF-8 text (byte {before - held + error.start})", "save it as UTF-8")
            if not piece:
                return InputError(f"{path} is not UTF-8 text", "save it as UTF-8")
            before += len(piece)
