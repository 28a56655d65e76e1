"""Parquet: only the columns that are asked for are read, as text; lists of text stay lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from regionvlp.data.tables.guard import Opener, opened, reading
from regionvlp.data.tables.vocabulary import VOCABULARY, Columns, names_of, normal
from regionvlp.errors import InputError

_ROWS = 1000
_TIMES = ("start", "end", "duration", "start_frame", "end_frame", "fps")


class Parquet:
    """A Parquet file.

    Args:
        path: the file.
        opener: opens it.
        columns: the user's names for columns.

    Attributes:
        names: the columns, in lower case.
        has_header: True.

    Raises:
        InputError: it is not whole.
    """

    has_header = True

    def __init__(self, path: str, opener: Opener, columns: Columns) -> None:
        self.path, self._opener = path, opener
        with opened(path, opener) as file:
            schema = pq.read_schema(file)
        self._given = list(schema.names)
        self.names = [normal(name) for name in self._given]
        self._roles: dict[str, int] = {}
        for role in VOCABULARY:
            place = next((self.names.index(name) for name in names_of(role, columns) if name in self.names), None)
            if place is not None:
                self._roles[role] = place

    def has(self, role: str) -> bool:
        """Whether a column plays a role."""
        return role in self._roles

    def name_of(self, role: str) -> str:
        """The name of the column of a role."""
        return self.names[self._roles[role]]

    def sample(self, role: str) -> list[Any]:
        """The first values of a column."""
        with opened(self.path, self._opener) as file, reading(self.path):
            batches = pq.ParquetFile(file).iter_batches(_ROWS, columns=[self._given[self._roles[role]]])
            return next((batch.column(0).to_pylist() for batch in batches if len(batch)), [])

    def read(self, roles: Sequence[str]) -> dict[str, pa.ChunkedArray]:
        """The columns of some roles.

        Raises:
            InputError: the file is damaged, or a column holds neither text nor what can be written as such.
        """
        given = list(dict.fromkeys(self._given[self._roles[role]] for role in roles))
        with opened(self.path, self._opener) as file, reading(self.path):
            # A nested column has a name for each of its parts: only the file's own reader knows them by the first.
            table = pq.ParquetFile(file).read(columns=given)
            table.validate(full=True)  # what a damaged file holds for text need be none
            return {role: self._converted(table.column(self._given[self._roles[role]]), role) for role in roles}

    def _converted(self, values: pa.ChunkedArray, role: str) -> pa.ChunkedArray:
        kind = values.type
        if pa.types.is_dictionary(kind):
            values, kind = values.cast(kind.value_type), kind.value_type
        if pa.types.is_null(kind):
            return pa.chunked_array([pa.nulls(len(values), pa.string())])
        if role in _TIMES and not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return values
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:  # Hugging Face's pictures and videos
            values = pc.struct_field(values, "path")
            kind = values.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            if role == "times":
                return values
            if role == "caption" and _is_text(kind.value_type):
                return values.cast(pa.list_(pa.string()))
        if _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return values.cast(pa.string())
        raise InputError(
            f"{self.path}: the column {self.name_of(role)!r} is of {kind}, which holds no {role}",
            "write text, or name another column",
        )


def _is_text(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary)
    ) or pa.types.is_large_binary(kind)
