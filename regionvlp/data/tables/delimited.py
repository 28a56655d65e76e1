"""Text tables: CSV, TSV and plain lines, with a header or without, read by Arrow in pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from regionvlp.data.tables import headerless, quoting
from regionvlp.data.tables.guard import Opener, not_text, opened, reading
from regionvlp.data.tables.vocabulary import KNOWN, VOCABULARY, Columns, names_of, normal
from regionvlp.errors import InputError

_SEPARATORS = (",", ";", "\t", "|")
_HEAD = 1 << 18  # bytes in which the first row must end
_BLOCK = 1 << 24  # bytes that are parsed at once; no field may be longer
_ROWS = 1000  # looked at, to tell what is what


class Delimited:
    """A text table.

    Args:
        path: the file.
        opener: opens it.
        columns: the user's names for columns.

    Attributes:
        names: the columns, in lower case; their numbers from 0, where there is no header.
        has_header: whether the first row names them.
        sampled: the first rows.

    Raises:
        InputError: the file is empty, not UTF-8, or without a header that could be told from its rows.
    """

    def __init__(self, path: str, opener: Opener, columns: Columns) -> None:
        self.path, self._opener = path, opener
        text = self._head()
        suffix = re.sub(r"\.gz$", "", path.lower()).rpartition(".")[2]
        self._separator = _separator(text, suffix)
        self._is_lines = self._separator == "\t" and "\t" not in text.partition("\n")[0] and suffix != "tsv"
        rows = quoting.records(text, self._separator, _ROWS + 1, path, quoted=not self._is_lines)
        if not rows:
            raise InputError(f"{path} is empty", "expected one video a row")
        first = [normal(name) for name in rows[0]]
        own = {normal(name) for name in columns.values()}
        numbers = [str(i) for i in range(len(first))]
        if own:  # as the user says: numbers for columns without names, or names, sought and maybe missed in the header
            self.has_header = first == numbers or not own <= set(numbers)
        else:
            self.has_header = headerless.is_header(rows[0], KNOWN)
        lines = not self.has_header and self._is_lines
        self._labelled = lines and all(headerless.LABELLED.fullmatch(row[0]) for row in rows)
        line = text.lstrip("\r\n").partition("\n")[0].rstrip("\r")
        self._all_quoted = all(re.fullmatch('".*"', field) for field in line.split(self._separator))
        self.names = first if self.has_header else numbers
        self.sampled = rows[1:] if self.has_header else rows
        self._width = len(first)
        self._skipped = _records_before_rows(text) if self.has_header else 0
        self._roles = self._decide(columns)

    def _decide(self, columns: Columns) -> dict[str, int]:
        """Role -> the place of its column."""
        if not self.has_header and not columns:
            if self._labelled:
                return {"video": 0}
            return headerless.roles_of(self.sampled, self.path)
        found = {}
        for role in VOCABULARY:
            place = next((self.names.index(name) for name in names_of(role, columns) if name in self.names), None)
            if place is not None:
                found[role] = place
        return found

    def has(self, role: str) -> bool:
        """Whether a column plays a role."""
        return role in self._roles

    def name_of(self, role: str) -> str:
        """The name of the column of a role."""
        return self.names[self._roles[role]]

    def sample(self, role: str) -> list[str]:
        """The first cells of a column."""
        place = self._roles[role]
        return [row[place] for row in self.sampled if place < len(row)]

    def read(self, roles: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """The columns of some roles, as text.

        Raises:
            InputError: the table is damaged or not UTF-8, or a row has too few or too many fields.
        """
        places = sorted({self._roles[role] for role in roles})
        table = self._quoted(places) if self._separator != "\t" else self._tabbed(places)
        try:
            columns = {place: table.column(f"f{place}").cast(pa.string()) for place in places}
        except pa.ArrowInvalid:
            raise not_text(self.path, self._opener) from None
        if self._labelled:
            columns[0] = pc.replace_substring_regex(columns[0], headerless.LABEL, "")
        found = {role: columns[self._roles[role]] for role in roles}
        if not self.has_header and "video" in found:
            numbered = pc.match_substring_regex(found["video"], rf"{headerless.MEDIA.pattern}$")
            cut = pc.replace_substring_regex(found["video"], r"#\d+$", "")
            found["video"] = pc.if_else(numbered, cut, found["video"])
        return found

    def _head(self) -> str:
        with opened(self.path, self._opener) as file:
            raw = _read_up_to(file, _HEAD)
        if len(raw) == _HEAD:
            whole = raw.rfind(b"\n") + 1
            if not whole:
                raise quoting.too_long(self.path, "line 1")
            raw = raw[:whole]
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise not_text(self.path, self._opener) from None

    def _quoted(self, places: list[int]) -> pa.Table:
        """Separated by commas and their like: by the letter of the format, or refused."""
        table, well_formed = self._parsed(places, quoted=True)
        if not well_formed:
            with opened(self.path, self._opener) as file, self._text():
                quoting.refuse_stray_quotes(file, self._separator, self.path)
        return self._checked(table)

    def _tabbed(self, places: list[int]) -> pa.Table:
        """Separated by tabs: with quoting only where the file was plainly written so.

        Captions of some files hold line breaks within quotes, those of others lone quotes. A file of the second kind
        read as one of the first swallows a separator into a caption, or comes out with rows of other lengths.
        """
        everything = list(range(self._width))
        if not self._is_lines:
            try:
                table, well_formed = self._parsed(everything, quoted=True)
            except InputError:
                well_formed = False
            if well_formed and not self._bad and _was_quoted(table, self._all_quoted):
                return table.select([f"f{place}" for place in places])
        table, _ = self._parsed(places, quoted=False)
        return self._checked(table)

    def _parsed(self, places: list[int], *, quoted: bool) -> tuple[pa.Table, bool]:
        """Some columns as bytes, called ``f0``, ``f1`` ..., and whether the quotes are those of the format."""
        names = [f"f{place}" for place in range(self._width)]
        wanted = [names[place] for place in places]
        self._bad: list[tuple[int, str]] = []

        def odd(row: pacsv.InvalidRow) -> str:
            self._bad.append((row.actual_columns, (row.text or "")[:40]))
            return "skip"

        with opened(self.path, self._opener) as file, reading(self.path):
            check = quoting.QuoteCheck(file, self._separator)
            reader = pacsv.open_csv(
                check if quoted else file,
                read_options=pacsv.ReadOptions(
                    block_size=_BLOCK, column_names=names, skip_rows_after_names=self._skipped, use_threads=False
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=self._separator,
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                    invalid_row_handler=odd,
                ),
                convert_options=pacsv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(wanted, pa.binary()), strings_can_be_null=False
                ),
            )
            batches = [batch for batch in reader if len(batch)]
        table = pa.Table.from_batches(batches, pa.schema([(name, pa.binary()) for name in wanted]))
        return table, quoted and check.well_formed()

    def _checked(self, table: pa.Table) -> pa.Table:
        if self._bad:
            fields, text = self._bad[0]
            where = "header names" if self.has_header else "first row has"
            raise InputError(
                f"{self.path}: {len(self._bad)} rows have another number of fields than the {self._width} that the "
                f"{where}, the first {fields}: {text!r}",
                f"quote captions that hold {self._separator!r} or line breaks",
            )
        return table

    def _text(self) -> _NotText:
        return _NotText(self.path, self._opener)


class _NotText:
    """Says where a text is not UTF-8, where a library only says that it is not."""

    def __init__(self, path: str, opener: Opener) -> None:
        self._path, self._opener = path, opener

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UnicodeDecodeError):
            raise not_text(self._path, self._opener) from None


def _separator(text: str, suffix: str) -> str:
    if suffix == "tsv":
        return "\t"
    line = text.lstrip("\r\n").partition("\n")[0]
    if suffix == "txt":
        if "\t" in line:
            return "\t"
        # Names of files may hold commas: only a header makes them separators.
        best = max(_SEPARATORS, key=line.count)
        return best if any(normal(name.strip('"')) in KNOWN for name in line.split(best)[:-1]) else "\t"
    return max(_SEPARATORS, key=line.count)


def _records_before_rows(text: str) -> int:
    """Rows up to and with the header, as Arrow counts them: blank ones too, one that holds line breaks as one."""
    blank = re.match(r"(?:\r\n|\r|\n)*", text)
    return len(re.findall(r"\r\n|\r|\n", blank.group() if blank else "")) + 1


def _was_quoted(table: pa.Table, all_quoted: bool) -> bool:
    """Whether quoting was needed for something, and hid no separator."""
    columns = [table.column(name) for name in table.column_names]
    if any(pc.any(pc.match_substring(column, "\t")).as_py() for column in columns):
        return False
    return all_quoted or any(pc.any(pc.match_substring_regex(column, r'["\r\n]')).as_py() for column in columns)


def _read_up_to(file: IO[bytes], size: int) -> bytes:
    """What a file holds up to a size; files on other systems may give less at once."""
    pieces, left = [], size
    while left > 0 and (piece := file.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
