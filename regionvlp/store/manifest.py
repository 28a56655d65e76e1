"""The manifest: what all shards of a folder have in common, settled by whoever comes first.

In: the settings of a run. Out: ``manifest.json``, or a clear error where the folder belongs to other settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from regionvlp import __version__
from regionvlp.errors import ShardError
from regionvlp.store.files import create_once, document_text, is_temporary, read_document
from regionvlp.store.names import MANIFEST_NAME, data_shard, shard_stem

_FIRST_KIND = "shard folder"  # its manifests do not say what they are: there was no other kind when they began
CREATED_BY = f"regionvlp {__version__}"


@dataclass(frozen=True, kw_only=True)
class BaseManifest:
    """The settings that make shards mixable. A kind of folder derives its own, with fields of JSON values and a default
    for ``schema_version``; they are written in the order in which ``ORDER`` or else the class names them.

    Attributes:
        KIND: what such a folder is called.
        SCHEMA_VERSION: newest description of its files that this program knows.
        SUFFIXES: of its data files, by format.
        ORDER: names of all fields but ``schema_version``, which always leads.
        format: of its data files.
        schema_version: of the description they were written by.
        created_by: the writing program, for information; the only field that need not agree.
    """

    KIND: ClassVar[str]
    SCHEMA_VERSION: ClassVar[int]
    SUFFIXES: ClassVar[Mapping[str, str]]
    ORDER: ClassVar[tuple[str, ...]] = ()

    format: str
    schema_version: int
    created_by: str = CREATED_BY

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, in a fixed order."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        kind = {} if self.KIND == _FIRST_KIND else {"kind": self.KIND}
        order = [name for name in self.ORDER or values if name != "schema_version"]
        return {"schema_version": values["schema_version"], **kind, **{name: values[name] for name in order}}

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """The first field in which another manifest (as :meth:`as_dict`) does not agree, with both values, or None."""
        mine = {name: value for name, value in self.as_dict().items() if name != "created_by"}
        theirs = {name: value for name, value in other.items() if name != "created_by"}
        return next(_differences(mine, theirs, ""), None)

    def data_name(self, number: int) -> str:
        """File name of the data of shard ``number``."""
        return shard_stem(number) + self.SUFFIXES[self.format]

    @classmethod
    def data_shard(cls, name: str) -> int | None:
        """Number of the shard that a data file's name belongs to, whatever its format; None for any other name."""
        return data_shard(name, cls.SUFFIXES.values())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], path: Path) -> Self:
        """The manifest that :meth:`as_dict` gave.

        Args:
            values: what was read.
            path: where it stood, for the message.

        Raises:
            ShardError: it is one of another kind of folder, or none at all.
        """
        cls._refuse_other_kind(values, path)
        try:
            return cls(**{name: value for name, value in values.items() if name != "kind"})
        except TypeError:
            raise ShardError(f"{path} is damaged: its fields are not a manifest's", "restore the file") from None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the manifest of a folder.

        Raises:
            ShardError: the folder has none, or it is damaged, of another kind, or newer than this program.
        """
        path = folder / MANIFEST_NAME
        if not folder.is_dir():
            raise ShardError(f"no {cls.KIND} at {folder}", "check the path")
        if not path.is_file():
            raise ShardError(f"{folder} is not a {cls.KIND}: it has no {MANIFEST_NAME}", "check the path")
        # The kind first: kinds count their versions each for itself.
        values = read_document(path, cls.SCHEMA_VERSION, lambda values: cls._refuse_other_kind(values, path))
        return cls.from_dict(values, path)

    @classmethod
    def _refuse_other_kind(cls, values: Mapping[str, Any], path: Path) -> None:
        kind = values.get("kind", _FIRST_KIND)
        if kind != cls.KIND:
            raise ShardError(f"{path.parent} is a {kind}, not a {cls.KIND}", "give the other folder")

    @classmethod
    def create_or_check(cls, folder: Path, wanted: Self) -> Self:
        """Makes ``folder`` one with the manifest ``wanted``, or checks that it is one that agrees.

        Several processes may call this at once: one creates, the others check. Where it raises, nothing was written.

        Returns:
            The manifest that holds for the folder.

        Raises:
            ShardError: the folder holds shards of other settings (the first difference is named), or files that are
                no shards, or cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / MANIFEST_NAME).exists():
                _refuse_foreign(folder)
                if create_once(folder / MANIFEST_NAME, document_text(wanted.as_dict())):
                    return wanted
        except OSError as error:
            raise ShardError(f"cannot write to {folder}: {error.strerror or error}", "use another --out") from error
        found = cls.read(folder)
        difference = found.difference(wanted.as_dict())
        if difference:
            raise ShardError(
                f"{folder} holds shards made with other settings: {difference} in this run",
                "use another --out, or the settings of the shards that are there",
            )
        return found


def _refuse_foreign(folder: Path) -> None:
    # Hidden files (.DS_Store, .nfs...) and the temporaries of a process that is just creating the manifest are no
    # reason to refuse; neither is a manifest that appeared meanwhile, which is checked next.
    names = [name for name in os.listdir(folder) if not name.startswith(".") and not is_temporary(name)]
    if names and MANIFEST_NAME not in names:
        raise ShardError(
            f"{folder} is not empty and has no {MANIFEST_NAME} (it holds '{min(names)}')",
            "use an empty or new folder as --out",
        )


def _differences(mine: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            yield from _differences(mine.get(key), theirs.get(key), f"{path}.{key}" if path else key)
    elif mine != theirs:
        yield f"{path} is {json.dumps(mine)} there and {json.dumps(theirs)}"
