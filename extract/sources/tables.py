"""Tables as users have them: CSV, TSV, plain lines, Parquet, JSON lines; with a header or without.

In: a file, here or on any file system that fsspec knows. Out: the columns that are asked for, by name, in lower case;
nothing else of the file is kept, so that a list of millions with its captions passes through in pieces.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Collection, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from regionvlp.errors import InputError
from regionvlp.extract.sources import remote

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet", ".jsonl")
_SEPARATORS = (",", ";", "\t")
_HEAD = 1 << 18  # bytes in which the first record of a text table must end
_BLOCK = 1 << 24  # bytes that are parsed at once; no field may be longer


class Table:
    """A table file.

    Args:
        path: a file or URL that ends in one of :data:`SUFFIXES`.
        known: names of columns, in lower case. A first line that holds none of them is no header: the columns are then
            called ``0``, ``1`` ...

    Attributes:
        names: the columns, in lower case.
        has_header: whether the file names them.

    Raises:
        InputError: the file cannot be read, is empty, or not what its name says.
    """

    def __init__(self, path: str, known: Collection[str]) -> None:
        self.path, self._kind = path, path.lower().rpartition(".")[2]
        self._separator = "\t"
        self._example: list[Any] = []
        self.has_header = True
        with self._open() as file:
            if self._kind == "parquet":
                self._given = self._parse(lambda: list(pq.read_schema(file).names))
            elif self._kind == "jsonl":
                first_object = self._first_object(file)
                self._types = {name: pa.infer_type([value]) for name, value in first_object.items()}
                self._given, self._example = list(first_object), list(first_object.values())
            else:
                first, *rest = self._first_records(file)
                self._example = rest[0] if rest else []
                self.has_header = any(name.strip().lower() in known for name in first)
                self._given = first if self.has_header else [f"f{i}" for i in range(len(first))]
        self.names = [name.strip().lower() for name in self._given]
        if not self.has_header:
            self.names = [str(i) for i in range(len(self._given))]

    def column(self, choices: Sequence[str]) -> str | None:
        """The first of ``choices`` that is a column of the table."""
        return next((name for name in choices if name in self.names), None)

    def example(self, name: str) -> Any:
        """The first value of a column, as Python has it; None in an empty table."""
        place = self.names.index(name)
        if self._kind == "parquet":
            with self._open() as file:
                batches = pq.ParquetFile(file).iter_batches(1, columns=[self._given[place]])
                return next((batch.column(0)[0].as_py() for batch in batches if len(batch)), None)
        return self._example[place] if place < len(self._example) else None

    def read(self, names: Sequence[str]) -> list[pa.ChunkedArray]:
        """The named columns, of text tables as text.

        Raises:
            InputError: the table is damaged, or a row has too few or too many fields.
        """
        given = [self._given[self.names.index(name)] for name in names]
        with self._open() as file:
            if self._kind == "parquet":
                table = self._parse(lambda: pq.read_table(file, columns=given))
            elif self._kind == "jsonl":
                table = self._parse(lambda: self._read_json(file, given))
            else:
                table = self._read_text(file, given)
        if not len(table):
            raise InputError(f"{self.path} holds no rows", "expected one video a row")
        return [table.column(name) for name in given]

    def _open(self) -> IO[bytes]:
        return remote.open_file(self.path)

    def _parse(self, read: Any) -> Any:
        try:
            return read()
        except (pa.ArrowException, OSError, ValueError) as error:
            words = str(error).splitlines()[0]
            raise InputError(f"{self.path} cannot be read: {words}", "check the file") from None

    def _first_records(self, file: IO[bytes]) -> list[list[str]]:
        raw = file.read(_HEAD)
        try:
            text = raw.decode("utf-8-sig") if len(raw) < _HEAD else raw[: raw.rfind(b"\n") + 1].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
        if self._kind == "csv":
            self._separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=self._separator)
        first = list(itertools.islice((row for row in rows if row), 2))
        if not first:
            raise InputError(f"{self.path} is empty", "expected one video a row")
        return first

    def _read_text(self, file: IO[bytes], given: list[str]) -> pa.Table:
        if self._separator != "\t":
            return self._parse(lambda: self._read_csv(file, given, quoted=True))
        # Captions of some TSV files hold line breaks within quotes, those of others lone quotes. A file of the second
        # kind read as one of the first swallows a separator into a caption, or comes out with rows of other lengths.
        try:
            table = self._read_csv(file, given, quoted=True)
        except pa.ArrowInvalid:
            table = None
        if table is not None:
            return table
        file.seek(0)
        return self._parse(lambda: self._read_csv(file, given, quoted=False))

    def _read_csv(self, file: IO[bytes], given: list[str], *, quoted: bool) -> pa.Table | None:
        """The columns ``given``; None where a quoted field swallowed a tab."""
        suspicious = quoted and self._separator == "\t"
        columns = self._given if suspicious else given
        reader = pacsv.open_csv(
            file,
            read_options=pacsv.ReadOptions(
                block_size=_BLOCK, autogenerate_column_names=not self.has_header, use_threads=False
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=self._separator, quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.binary()), strings_can_be_null=False
            ),
        )
        batches = []
        for batch in reader:
            if suspicious and any(pc.any(pc.match_substring(batch.column(name), "\t")).as_py() for name in columns):
                return None
            batches.append(batch.select(given))
        table = pa.Table.from_batches(batches, pa.schema([pa.field(name, pa.binary()) for name in given]))
        return table.cast(pa.schema([pa.field(name, pa.string()) for name in given]))

    def _first_object(self, file: IO[bytes]) -> dict[str, Any]:
        try:
            first = json.loads(file.readline() or b"null")
        except ValueError:
            first = None
        if not isinstance(first, dict):
            raise InputError(f"{self.path}, line 1: not a JSON object", "expected one object a line")
        return first

    def _read_json(self, file: IO[bytes], given: list[str]) -> pa.Table:
        schema = pa.schema([(name, self._types[name]) for name in given])
        return pajson.read_json(
            file,
            read_options=pajson.ReadOptions(block_size=_BLOCK),
            parse_options=pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
