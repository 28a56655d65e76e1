"""A table of any kind, its columns by what they mean."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from regionvlp.data.tables.delimited import Delimited
from regionvlp.data.tables.documents import Documents
from regionvlp.data.tables.guard import PARQUET, Opener, open_local, opened, reading
from regionvlp.data.tables.parquet import Parquet
from regionvlp.data.tables.vocabulary import check_columns, no_column, shown
from regionvlp.errors import InputError

_KINDS = (".csv", ".tsv", ".txt", ".parquet", ".jsonl", ".ndjson", ".json")
SUFFIXES = (*_KINDS, *(f"{kind}.gz" for kind in _KINDS))
_JSON = (".jsonl", ".ndjson", ".json")


class Table:
    """A table file; see :mod:`regionvlp.data.tables` for the kinds that there are.

    Args:
        path: the file, or what ``opener`` takes.
        columns: role -> the name of its column, for files that call it otherwise than
            :data:`~regionvlp.data.tables.vocabulary.VOCABULARY` knows; in a file without a header, its number from 0.
        opener: opens ``path`` for reading bytes; by default a file of this machine.

    Raises:
        InputError: the file cannot be read, is empty, or not what its name says.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, columns: Mapping[str, str] | None = None, opener: Opener = open_local
    ) -> None:
        self.path = os.fspath(path)
        own = check_columns(columns or {})
        with opened(self.path, opener) as file:
            start = file.read(64)
        name = self.path.lower().removesuffix(".gz")
        kind: type[Parquet] | type[Documents] | type[Delimited] = Delimited
        if start.startswith(PARQUET) or name.endswith(".parquet"):
            kind = Parquet
        elif name.endswith(_JSON) or (not name.endswith(_KINDS) and start.lstrip()[:1] in (b"{", b"[")):
            kind = Documents
        with reading(self.path):
            self._table = kind(self.path, opener, own)
        for role, given in own.items():
            if not self._table.has(role):
                raise InputError(f"{self.path} has no column {given!r} (it has {shown(self.names)})", "correct it")

    @property
    def names(self) -> list[str]:
        """The columns, in lower case."""
        return self._table.names

    @property
    def has_header(self) -> bool:
        """Whether the file names its columns."""
        return self._table.has_header

    def has(self, *roles: str) -> bool:
        """Whether there is a column of one of some roles."""
        return any(self._table.has(role) for role in roles)

    def name_of(self, role: str) -> str:
        """The name of the column that plays a role."""
        return self._table.name_of(role)

    def sample(self, role: str) -> list[Any]:
        """The first cells of a role, as Python has them; at most 1,000."""
        with reading(self.path):
            return self._table.sample(role)

    def read(self, *roles: str) -> dict[str, pa.ChunkedArray]:
        """The columns of some roles, all of one length; text but for times and lists, null where a row has nothing.

        Raises:
            InputError: the table is damaged, holds no rows, or lacks a column of such a role.
        """
        for role in roles:
            if not self._table.has(role):
                raise no_column(self.path, role, self.names)
        with reading(self.path):
            found = self._table.read(roles)
        if not len(next(iter(found.values()))):
            raise InputError(f"{self.path} holds no rows", "expected one video a row")
        return found
