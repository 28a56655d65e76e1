"""The manifest: what all shards of a folder have in common, settled by whoever comes first.

In: the settings of a run. Out: ``manifest.json``, or a clear error where the folder belongs to other settings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regionvlp import __version__
from regionvlp.errors import ShardError
from regionvlp.shards.schema import ShardSpec
from regionvlp.store.files import create_once, document_text, is_temporary, read_document

MANIFEST_NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest(ShardSpec):
    """The settings that make shards mixable.

    Attributes:
        shard_size: videos planned per shard.
        detector: identity of the detector, such as family, weights hash and preprocessing; JSON values.
        video: how frames were read and sampled; JSON values.
        created_by: the writing program, for information; the only field that need not agree.
    """

    shard_size: int
    detector: dict[str, Any]
    video: dict[str, Any]
    created_by: str = f"regionvlp {__version__}"

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON values, in a fixed order."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"schema_version": values.pop("schema_version"), **values}

    def difference(self, other: Mapping[str, Any]) -> str | None:
        """The first field in which another manifest (as :meth:`as_dict`) does not agree, with both values, or None."""
        mine = {name: value for name, value in self.as_dict().items() if name != "created_by"}
        theirs = {name: value for name, value in other.items() if name != "created_by"}
        return next(_differences(mine, theirs, ""), None)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads the manifest of a shard folder.

        Raises:
            ShardError: the folder has none, or it is damaged or newer than this program.
        """
        path = folder / MANIFEST_NAME
        if not folder.is_dir():
            raise ShardError(f"no shard folder at {folder}", "check the path")
        if not path.is_file():
            raise ShardError(f"{folder} is not a shard folder: it has no {MANIFEST_NAME}", "check the path")
        try:
            return cls(**read_document(path))
        except TypeError:
            raise ShardError(f"{path} is damaged: its fields are not a manifest's", "restore the file") from None

    @classmethod
    def create_or_check(cls, folder: Path, wanted: Manifest) -> Manifest:
        """Makes ``folder`` a shard folder with the manifest ``wanted``, or checks that it is one that agrees.

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
