"""Another kind of folder than that of regions, made of what the store offers: it must survive the same things."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from regionvlp.errors import InputError, ShardError
from regionvlp.shards import Manifest, inspect
from regionvlp.store.claims import Claims, claim_name
from regionvlp.store.files import document_text, flush_and_sum, publish_new, temporary_path
from regionvlp.store.manifest import BaseManifest
from regionvlp.store.plan import PlanRow, write_plan
from regionvlp.store.receipts import (
    BaseReceipt,
    Failure,
    data_files,
    finished_shards,
    lost_shards,
    read_receipts_as,
    receipt_path,
)
from regionvlp.store.recovery import set_lost_aside, tidy
from regionvlp.store.repair import Fault, set_faults_aside
from regionvlp.store.summary import summarise


@dataclass(frozen=True, kw_only=True)
class TextManifest(BaseManifest):
    KIND: ClassVar = "folder of words"
    SCHEMA_VERSION: ClassVar = 3
    SUFFIXES: ClassVar = {"text": ".txt"}

    format: str = "text"
    schema_version: int = 3
    language: str


@dataclass(frozen=True, kw_only=True)
class TextReceipt(BaseReceipt):
    SCHEMA_VERSION: ClassVar = 3
    COUNTS: ClassVar = ("videos", "words")

    schema_version: int = 3
    words: int


def write_words(folder: Path, number: int, words: list[str], failures: list[Failure] | None = None) -> None:
    """One shard, as a worker writes it: a line of the manifest and then a word a line."""
    manifest = TextManifest.read(folder)
    path = folder / manifest.data_name(number)
    with Claims(folder) as claims:
        claim = claims.take(claim_name(number))
        assert claim is not None
        with claim:
            temporary = temporary_path(path)
            temporary.write_text("\n".join([json.dumps(manifest.as_dict()), *words]), encoding="utf-8")
            receipt = TextReceipt(
                shard=number,
                file=path.name,
                format=manifest.format,
                bytes=temporary.stat().st_size,
                sha256=flush_and_sum(temporary),
                videos=1,
                failures=failures or [],
                partial=[],
                versions={},
                timings={},
                words=len(words),
            )
            with claim.publishing():
                assert publish_new(temporary, path, flushed=True)
                temporary.unlink()
                assert receipt.write_first(folder)


def embedded(path: Path, file_format: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8").partition("\n")[0])
    return values


def verify_words(folder: Path) -> list[Fault]:
    return [
        Fault(number, TextManifest.read(folder).data_name(number), "not the size the receipt says")
        for number in lost_shards(folder)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "words"
    TextManifest.create_or_check(folder, TextManifest(language="en"))
    write_words(folder, 0, ["a", "dog"])
    write_words(folder, 1, ["runs"], [Failure("bad.mp4", "open", "empty-file", "VideoError", "no bytes")])
    return folder


def test_it_is_told_from_other_kinds(folder: Path, tmp_path: Path, shard_set: tuple[Path, object]) -> None:
    assert TextManifest.read(folder) == TextManifest(language="en")
    with pytest.raises(ShardError, match="is a folder of words, not a shard folder"):
        inspect(folder)
    with pytest.raises(ShardError, match="is a shard folder, not a folder of words"):
        TextManifest.read(shard_set[0])
    with pytest.raises(ShardError, match='language is "en" there and "de" in this run'):
        TextManifest.create_or_check(folder, TextManifest(language="de"))
    with pytest.raises(ShardError, match="no folder of words at"):
        TextManifest.read(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no folder of words at"):
        summarise(tmp_path / "nowhere", TextManifest, TextReceipt)


def test_versions_are_counted_by_kind(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    values = {name: value for name, value in json.loads(text).items() if name != "digest"}
    (folder / "manifest.json").write_text(document_text({**values, "schema_version": 4}))
    with pytest.raises(ShardError, match="schema 4, this one reads up to 3"):
        TextManifest.read(folder)
    with pytest.raises(ShardError, match="not a shard folder"):  # not that the program is too old for it
        Manifest.read(folder)


def test_its_receipts_are_its_own_and_anybodys(folder: Path) -> None:
    assert [receipt.words for receipt in read_receipts_as(TextReceipt, folder)] == [2, 1]
    assert [receipt.videos for receipt in read_receipts_as(BaseReceipt, folder)] == [1, 1]
    summary = summarise(folder, TextManifest, TextReceipt)
    assert (summary["kind"], summary["language"], summary["words"]) == ("folder of words", "en", 3)
    assert (summary["shards_done"], summary["failures"], summary["lost"]) == (2, {"empty-file": 1}, 0)
    path = receipt_path(folder, 0)
    values = {name: value for name, value in json.loads(path.read_text()).items() if name != "digest"}
    path.write_text(document_text({name: value for name, value in values.items() if name != "words"}))
    with pytest.raises(ShardError, match="its fields are not a receipt's"):
        TextReceipt.read(path)


def test_lost_data_is_done_again(folder: Path) -> None:
    (folder / "shard-00001.txt").unlink()
    with Claims(folder) as claims:
        set_lost_aside(folder, claims)
    assert finished_shards(folder) == [0]
    write_words(folder, 1, ["again"])
    assert lost_shards(folder) == []


def test_what_the_dead_left_is_removed_and_nothing_else(folder: Path) -> None:
    unnamed, foreign = folder / "shard-00000-0123456789ab.txt", folder / "shard-00000.h5"
    for path in (unnamed, foreign):
        path.write_text("x")
    assert data_files(folder, TextManifest.read(folder), 0) == [unnamed, folder / "shard-00000.txt"]
    with Claims(folder) as claims:
        tidy(folder, claims, "run", TextManifest)
    assert not unnamed.exists()
    assert foreign.exists()
    assert (folder / "shard-00000.txt").exists()


def test_faults_are_set_aside_and_the_manifest_is_restored(folder: Path) -> None:
    write_plan(folder, [PlanRow(number, f"{number}.mp4", 1, 2) for number in range(2)])
    before = (folder / "manifest.json").read_bytes()
    os.truncate(folder / "shard-00000.txt", 3)
    (folder / "manifest.json").write_text("{")
    done = set_faults_aside(folder, TextManifest, verify_words, embedded)
    assert (done.redo, done.restored) == ([0], True)
    assert (folder / "manifest.json").read_bytes() == before
    assert finished_shards(folder) == [1]
    assert sorted(os.listdir(folder / "set-aside")) == ["manifest.json", "shard-00000.json", "shard-00000.txt"]
