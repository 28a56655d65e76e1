"""An index on disk: what it is, and what of it counts.

::

    INDEX/manifest.json       how clips are cut and which encoders read them; never changes
    INDEX/contents.json       which segments count, which of their rows were taken out, what failed
    INDEX/segment-000012/     the rows of some clips (see ``segment``); never changes
    INDEX/words.sqlite        their labels as words, where an encoder matches words
    INDEX/regions/            the shards that were extracted for it, where it was made straight from videos

``contents.json`` is replaced as a whole, so a reader sees the index as it was before a change or as it is after. What
it does not name is a leftover of a process that died; the next writer removes it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regionvlp import __version__
from regionvlp.errors import InputError, ShardError
from regionvlp.search.presence import Judge
from regionvlp.store.files import create_once, document_text, is_temporary, read_document, remove_leftovers, replacing

INDEX_VERSION = 1
KIND = "index"
MANIFEST_NAME, CONTENTS_NAME, LOCK_NAME = "manifest.json", "contents.json", ".writer"
SEGMENT_PREFIX = "segment-"


@dataclass(frozen=True)
class EncoderRecord:
    """An encoder as an index knows it.

    Attributes:
        name: as the user named it. identity: decides whether its vectors can be compared with others.
        place: where it was opened from; may change.
        width: D of the pooled vectors; 0 where it matches words.
        tokens: whether the clips' tokens are stored.
    """

    name: str
    identity: dict[str, Any]
    place: str
    width: int
    tokens: bool


@dataclass(frozen=True)
class IndexManifest:
    """What all of an index has in common.

    Attributes:
        encoders: in the order in which their vectors are stored.
        cut: how files were cut into clips: JSON values.
        source: where clips came from, such as the videos' folder: JSON values; for information.
        created_by: the writing program, for information.
    """

    encoders: tuple[EncoderRecord, ...]
    cut: dict[str, Any]
    source: dict[str, Any]
    created_by: str = f"regionvlp {__version__}"

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"schema_version": INDEX_VERSION, "kind": KIND, **values}

    def difference(self, other: IndexManifest) -> str:
        """The first thing in which another manifest means something else, in words that follow 'it has'; or nothing."""
        mine, theirs = ([record.name for record in manifest.encoders] for manifest in (self, other))
        if len(mine) != len(theirs):
            return f"the encoders {', '.join(mine)}, not {', '.join(theirs)}"
        for here, there in zip(self.encoders, other.encoders, strict=True):
            if here.identity != there.identity and here.name == there.name and "@" in here.place + there.place:
                goes_on = f"--encoder {here.place} goes on with it"
                return f"the encoder {here.name} as it was at {here.place}, and now it is {there.place} ({goes_on})"
            if here.identity != there.identity:
                key = next(
                    key for key in here.identity | there.identity if here.identity.get(key) != there.identity.get(key)
                )
                return f"the encoder {here.name}, and {there.name} is another one ({key} differs)"
            if here.tokens != there.tokens:
                return f"{'' if here.tokens else 'no '}tokens of {here.name}"
        if self.cut != other.cut:
            return f"clips cut by {json.dumps(self.cut)}, not {json.dumps(other.cut)}"
        return ""

    @classmethod
    def read(cls, folder: Path) -> IndexManifest:
        """Reads the manifest of an index.

        Raises:
            InputError: the folder is no index. ShardError: the manifest is damaged, or newer than this program.
        """
        path = folder / MANIFEST_NAME
        if not folder.is_dir():
            raise InputError(f"there is no index at {folder}", "make one with 'regionvlp index'")
        if not path.is_file():
            raise InputError(f"{folder} is no index: it has no {MANIFEST_NAME}", "make one with 'regionvlp index'")
        values = read_document(path)
        if values.pop("kind", None) != KIND:
            raise InputError(
                f"{folder} holds something else than an index", "name a folder that 'regionvlp index' made"
            )
        version = values.pop("schema_version", None)
        if version != INDEX_VERSION:
            raise ShardError(
                f"{folder} was made by another version (index version {version}, this one reads {INDEX_VERSION})",
                "make it anew with 'regionvlp index'",
            )
        try:
            records = tuple(EncoderRecord(**record) for record in values.pop("encoders"))
            return cls(encoders=records, **values)
        except (TypeError, KeyError):
            raise ShardError(f"{path} is damaged: its fields are not an index's", "make the index anew") from None

    @classmethod
    def create_or_check(cls, folder: Path, wanted: IndexManifest) -> IndexManifest:
        """Makes ``folder`` an index, or checks that it is one that agrees with ``wanted``.

        Raises:
            InputError: the folder holds an index of other encoders or clips, or something else, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / MANIFEST_NAME).exists():
                foreign = [name for name in os.listdir(folder) if not name.startswith(".") and not is_temporary(name)]
                if foreign and MANIFEST_NAME not in foreign:
                    raise InputError(f"{folder} is not empty (it holds '{min(foreign)}')", "use a new folder as --out")
                if create_once(folder / MANIFEST_NAME, document_text(wanted.as_dict())):
                    return wanted
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror or error}", "use another --out") from None
        found = cls.read(folder)
        if difference := found.difference(wanted):
            raise InputError(f"{folder} is another index: it has {difference}", "use another --out, or delete it")
        return found


@dataclass(frozen=True)
class Unread:
    """A file that could not be indexed, in the words of its failure row.

    Attributes:
        stamp: of the file when it was tried; another stamp, and it is tried again.
        transient: it is tried again anyway.
    """

    video_id: str
    stage: str
    reason: str
    message: str
    stamp: str
    transient: bool = False


@dataclass(frozen=True)
class Contents:
    """What of an index counts.

    Attributes:
        segments: names, each with the number of its rows.
        dropped: rows that were taken out, by segment, ascending.
        unread: files that failed.
        presence: by encoder, what tells whether anything answers a query; empty until an indexing ended.
        done: parts of the videos that are indexed, by name.
        generation: counts the changes.
    """

    segments: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, list[int]] = field(default_factory=dict)
    unread: tuple[Unread, ...] = ()
    presence: tuple[Judge, ...] = ()
    done: tuple[str, ...] = ()
    generation: int = 0

    @property
    def rows(self) -> int:
        """Clips that count."""
        return sum(self.segments.values()) - sum(map(len, self.dropped.values()))

    @classmethod
    def read(cls, folder: Path) -> Contents:
        """Reads the contents; those of an index that nothing was ever added to are empty.

        Raises:
            ShardError: the file is damaged.
        """
        path = folder / CONTENTS_NAME
        if not path.exists():
            return cls()
        values = read_document(path)
        try:
            values["unread"] = tuple(Unread(**row) for row in values["unread"])
            values["done"] = tuple(values["done"])
            values["presence"] = tuple(
                Judge(one["mean"], one["spread"], tuple(one["weights"])) for one in values.get("presence", ())
            )
            values.pop("null", None)  # of an index of before; it is measured again when it is needed
            return cls(**values)
        except (TypeError, KeyError):
            raise ShardError(f"{path} is damaged: its fields are not an index's", "make the index anew") from None

    def write(self, folder: Path) -> Contents:
        """Makes these the contents, all at once, with the next generation number; returns them.

        Raises:
            ShardError: the disk refuses; what counted before counts still.
        """
        next_one = replace(self, generation=self.generation + 1)
        values = {**asdict(next_one), "done": list(self.done)}
        with writing(folder), replacing(folder / CONTENTS_NAME) as temporary:
            temporary.write_text(document_text(values), encoding="utf-8")
        return next_one


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what a disk says into what a user can do."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"cannot write to {folder}: {error.strerror or error}",
            "free some space or mend the disk, and run again: what is indexed is kept",
        ) from error


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Holds an index against other writers of this machine until the block ends, and removes what dead ones left.

    Raises:
        InputError: another process is writing to it.
    """
    with writing(folder), (folder / LOCK_NAME).open("ab") as file:
        _lock(file.fileno(), folder)
        remove_leftovers(folder)
        yield


def _lock(descriptor: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another process is indexing into {folder}", "wait until it is done") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):  # a file system without locks
            raise


def remove_unnamed(folder: Path, contents: Contents) -> None:
    """Removes the segments that do not count."""
    for name in os.listdir(folder):
        if name.startswith(SEGMENT_PREFIX) and not is_temporary(name) and name not in contents.segments:
            shutil.rmtree(folder / name, ignore_errors=True)


def without(contents: Contents, rows: Mapping[str, Sequence[int]]) -> Contents:
    """The contents with rows taken out, by segment; a segment without any left does not count."""
    dropped = {name: sorted({*contents.dropped.get(name, ()), *rows.get(name, ())}) for name in contents.segments}
    segments = {name: count for name, count in contents.segments.items() if len(dropped[name]) < count}
    return replace(contents, segments=segments, dropped={name: dropped[name] for name in segments if dropped[name]})
