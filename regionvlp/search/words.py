"""Words: the labels of every clip in a full-text table of SQLite, ranked by BM25.

In: a text for each clip. Out: the clips whose labels hold words of a query, with their scores. The table is
filled before the index is; what it holds of clips that the index does not (yet, or any more) is passed over.
"""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from regionvlp.errors import ShardError

WORDS_NAME = "words.sqlite"
MOST_WORDS = 64  # of a query
_TOKEN = re.compile(r"[^\W_]+")
_PATIENCE = 30.0  # seconds to wait for another process that is writing
_TABLES = """
CREATE TABLE IF NOT EXISTS clips (number INTEGER PRIMARY KEY, clip_id TEXT NOT NULL UNIQUE);
CREATE VIRTUAL TABLE IF NOT EXISTS labels USING fts5(text, tokenize = 'porter unicode61');
"""


def tokens(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _TOKEN.findall(text.lower())


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """A word as the table files it, by the same stemmer: ``dogs`` is ``dog``."""
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.execute("CREATE VIRTUAL TABLE t USING fts5(text, tokenize = 'porter unicode61')")
        memory.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, 'row')")
        memory.execute("INSERT INTO t VALUES (?)", (word,))
        row = memory.execute("SELECT term FROM v").fetchone()
    return str(row[0]) if row else word


class Words:
    """The table of an index.

    Args:
        folder: of the index.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / WORDS_NAME

    def put(self, texts: Mapping[str, str]) -> None:
        """Files the text of each clip, in place of the one that it had.

        Raises:
            ShardError: the table cannot be written.
        """
        with self._open() as table, table:
            table.executescript(_TABLES)
            self._delete(table, texts)
            for clip_id, text in texts.items():
                number = table.execute("INSERT INTO clips (clip_id) VALUES (?)", (clip_id,)).lastrowid
                table.execute("INSERT INTO labels (rowid, text) VALUES (?, ?)", (number, text))

    def keep(self, clip_ids: Iterable[str]) -> None:
        """Takes out every clip but these."""
        if not self._path.exists():
            return
        kept = set(clip_ids)
        with self._open() as table, table:
            table.executescript(_TABLES)
            gone = [row[0] for row in table.execute("SELECT clip_id FROM clips") if row[0] not in kept]
            self._delete(table, gone)

    def match(self, query: str) -> dict[str, float]:
        """The clips that hold any word of the query, each with its BM25 score: above 0, more is better.

        Raises:
            ShardError: the table is damaged.
        """
        wanted = list(dict.fromkeys(tokens(query)))[:MOST_WORDS]
        if not wanted or not self._path.exists():
            return {}
        with self._open() as table:
            return _matched(table, wanted)

    def match_changed(self, query: str, clip_id: str, texts: Sequence[str]) -> list[float]:
        """What :meth:`match` would give for one clip if it had each of these texts instead of its own.

        Worked out in a copy of the table in memory; 0 where no word is held.
        """
        with self._open() as table, closing(sqlite3.connect(":memory:")) as memory:
            table.backup(memory)
            found = table.execute("SELECT number FROM clips WHERE clip_id = ?", (clip_id,)).fetchone()
            wanted = list(dict.fromkeys(tokens(query)))[:MOST_WORDS]
            scores = []
            for text in texts if found and wanted else ():
                memory.execute("DELETE FROM labels WHERE rowid = ?", found)
                memory.execute("INSERT INTO labels (rowid, text) VALUES (?, ?)", (*found, text))
                scores.append(_matched(memory, wanted).get(clip_id, 0.0))
        return scores or [0.0] * len(texts)

    def texts(self, clip_ids: Sequence[str] | None = None) -> dict[str, str]:
        """What is filed, by clip: of those that are named, or of all."""
        if not self._path.exists():
            return {}
        asked = "SELECT clip_id, text FROM clips JOIN labels ON labels.rowid = clips.number"
        with self._open() as table:
            if clip_ids is None:
                return dict(table.execute(asked).fetchall())
            found = (table.execute(f"{asked} WHERE clip_id = ?", (clip_id,)).fetchone() for clip_id in clip_ids)
            return dict(row for row in found if row is not None)

    def _delete(self, table: sqlite3.Connection, clip_ids: Iterable[str]) -> None:
        for clip_id in clip_ids:
            found = table.execute("SELECT number FROM clips WHERE clip_id = ?", (clip_id,)).fetchone()
            if found is not None:
                table.execute("DELETE FROM labels WHERE rowid = ?", found)
                table.execute("DELETE FROM clips WHERE number = ?", found)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=_PATIENCE)) as table:
                yield table
        except sqlite3.Error as error:
            raise ShardError(
                f"the table of words {self._path} cannot be used: {error}",
                "check the free space; where it is damaged, delete it and run 'regionvlp index' again",
            ) from None


def _matched(table: sqlite3.Connection, wanted: Iterable[str]) -> dict[str, float]:
    rows = table.execute(
        "SELECT clips.clip_id, -bm25(labels) FROM labels JOIN clips ON clips.number = labels.rowid "
        "WHERE labels MATCH ?",
        (" OR ".join(f'"{word}"' for word in wanted),),
    ).fetchall()
    # A word that more than half of all clips hold weighs nothing, or less; it still is there.
    return {clip_id: max(float(score), 1e-9) for clip_id, score in rows}
