"""What the class numbers of a shard folder mean: ``vocabulary.json`` beside the manifest.

In: the class names of the detector. Out: the words by which regions can be searched and drawn. Shards that were made
before this file existed, or imported without names, have none; everything but words works without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regionvlp.errors import ShardError
from regionvlp.store.files import create_once, document_text, read_document

VOCABULARY_NAME = "vocabulary.json"


@dataclass(frozen=True)
class Vocabulary:
    """Class names by number. A name may hold synonyms, separated by commas.

    Attributes:
        objects: of ``class_ids``.
        attributes: of ``attribute_ids``; empty where the detector has none.
    """

    objects: Sequence[str]
    attributes: Sequence[str] = ()

    def object_name(self, number: int) -> str:
        """The first synonym of a class; ``class 7`` where it has no name."""
        return _first(self.objects, number, "class")

    def attribute_name(self, number: int) -> str:
        """The first synonym of an attribute; empty for -1."""
        return "" if number < 0 else _first(self.attributes, number, "attribute")


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Writes the names into a shard folder, once: what is there already stays, for the manifest holds it too.

    Raises:
        ShardError: the folder cannot be written.
    """
    path = folder / VOCABULARY_NAME
    if path.exists():
        return
    values = {"objects": list(vocabulary.objects), "attributes": list(vocabulary.attributes)}
    try:
        create_once(path, document_text(values))
    except OSError as error:
        raise ShardError(
            f"cannot write {path}: {error.strerror or error}", "free some space or mend the disk"
        ) from error


def read_vocabulary(folder: Path) -> Vocabulary | None:
    """The names of a shard folder, or None where it has none.

    Raises:
        ShardError: the file is damaged.
    """
    path = folder / VOCABULARY_NAME
    if not path.exists():
        return None
    values = read_document(path)
    lists = values.get("objects"), values.get("attributes")
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise ShardError(f"{path} is damaged: its fields are not lists of names", "restore the file, or delete it")
    return Vocabulary(values["objects"], values["attributes"])


def _first(names: Sequence[str], number: int, kind: str) -> str:
    if not 0 <= number < len(names):
        return f"{kind} {number}"
    return names[number].split(",")[0].strip()
