"""Whatever happens to a file of a shard folder, verification says so, and repair has exactly that done again."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from regionvlp.errors import InputError, ShardError
from regionvlp.pipelines.cli import run
from regionvlp.regions import VideoRegions
from regionvlp.shards import Failure, Manifest, ShardWriter, finished_shards, open_shards, read_plan, verify, write_plan
from regionvlp.shards.repair import repair
from regionvlp.store.claims import Claims, claim_name
from regionvlp.store.files import document_text, temporary_path

ShardSet = tuple[Path, dict[str, VideoRegions]]


def redo(folder: Path, plan: object, videos: dict[str, VideoRegions]) -> list[int]:
    """What the next extraction does: plan where there is none, then every shard without a receipt."""
    if read_plan(folder) is None:
        write_plan(folder, plan)  # type: ignore[arg-type]
    manifest, again = Manifest.read(folder), []
    table = read_plan(folder)
    assert table is not None
    for number in table.shards():
        if number not in finished_shards(folder):
            with ShardWriter(folder, number, manifest) as writer:
                failures = []
                for name in table.video_ids(number):
                    if name in videos:
                        writer.add(videos[name])
                    else:
                        failures.append(Failure(name, "open", "empty-file", "VideoError", "no bytes"))
                writer.finish(failures=failures)
            again.append(number)
    return again


def contents(folder: Path) -> dict[str, bytes]:
    """The data files, and what else a folder holds."""
    data = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".h5", ".parquet")}
    return {**data, "names": "\n".join(sorted(path.name for path in folder.iterdir() if path.is_file())).encode()}


def check_mended(folder: Path, expected: dict[str, bytes], plan: object, videos: dict[str, VideoRegions]) -> list[int]:
    assert verify(folder, planned=True) != [], "the damage went unseen"
    repair(folder)
    faults = verify(folder, planned=True)
    assert all(fault.undone or fault.file == "plan.parquet" for fault in faults), faults
    again = redo(folder, plan, videos)
    assert verify(folder, planned=True) == []
    reader = open_shards(folder)
    assert dict(reader).keys() == videos.keys()
    assert all(reader[name].equals(video) for name, video in videos.items())
    shutil.rmtree(folder / "set-aside", ignore_errors=True)
    assert contents(folder) == expected
    return again


@pytest.mark.parametrize("name", ["manifest.json", "plan.parquet", "shard-00001.json", "shard-00001"])
def test_any_flipped_bit(shard_set: ShardSet, name: str) -> None:
    folder, videos = shard_set
    path = folder / (name if "." in name else Manifest.read(folder).data_name(1))
    expected, plan, whole = contents(folder), read_plan(folder), path.read_bytes()
    random.seed(name)
    for _ in range(6):
        place = random.randrange(len(whole) * 8)
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        again = check_mended(folder, expected, plan, videos)
        assert again == ([1] if name.startswith("shard") else [])


@pytest.mark.slow
def test_every_byte_of_every_file(shard_set: ShardSet) -> None:
    """Not one bit of any file can change unseen."""
    folder, _ = shard_set
    for path in [path for path in folder.iterdir() if path.is_file()]:
        whole = path.read_bytes()
        step = max(1, len(whole) // 300)
        for place in range(0, len(whole), step):
            content = bytearray(whole)
            content[place] ^= 1 << place % 8
            path.write_bytes(content)
            assert verify(folder, planned=True) != [], (path.name, place)
        path.write_bytes(whole)
    assert verify(folder, planned=True) == []


def damage_truncated(folder: Path, data: str) -> None:
    os.truncate(folder / data, 100)


def damage_gone(folder: Path, data: str) -> None:
    (folder / data).unlink()


def damage_no_receipt(folder: Path, data: str) -> None:
    (folder / "shard-00001.json").unlink()


def damage_empty_receipt(folder: Path, data: str) -> None:
    (folder / "shard-00001.json").write_bytes(b"")


def damage_another_s_data(folder: Path, data: str) -> None:
    shutil.copy(folder / Manifest.read(folder).data_name(0), folder / data)


def damage_missing_row(folder: Path, data: str) -> None:
    path = folder / "shard-00001.json"
    values = json.loads(path.read_text())
    del values["digest"]
    path.write_text(document_text({**values, "failures": []}))


def damage_doubled(folder: Path, data: str) -> None:
    """A whole shard that holds a video of another one."""
    video = open_shards(folder)["a.mp4"]
    (folder / "shard-00001.json").unlink()
    (folder / data).unlink()
    with ShardWriter(folder, 1, Manifest.read(folder)) as writer:
        writer.add(video)
        writer.finish()


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncated,
        damage_gone,
        damage_no_receipt,
        damage_empty_receipt,
        damage_another_s_data,
        damage_missing_row,
        damage_doubled,
    ],
)
def test_damage(shard_set: ShardSet, damage: Callable[[Path, str], None]) -> None:
    folder, videos = shard_set
    data = Manifest.read(folder).data_name(1)
    expected, plan = contents(folder), read_plan(folder)
    damage(folder, data)
    assert check_mended(folder, expected, plan, videos) == [1]


def test_nothing_is_deleted_and_names_are_never_used_twice(shard_set: ShardSet) -> None:
    folder, videos = shard_set
    name = Manifest.read(folder).data_name(2)
    plan = read_plan(folder)
    kept = []
    for size in (10, 20, 30):
        os.truncate(folder / name, size)
        kept.append((folder / name).read_bytes())
        done = repair(folder)
        assert (done.moved, done.redo) == (["shard-00002.json", name], [2])
        redo(folder, plan, videos)
    aside = folder / "set-aside"
    assert sorted(path.read_bytes() for path in aside.glob(f"{name}*")) == sorted(kept)
    assert len(list(aside.glob("shard-00002.json*"))) == 3
    assert repair(folder).moved == []


def test_a_dry_run_changes_nothing(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    os.truncate(folder / Manifest.read(folder).data_name(0), 10)
    before = contents(folder)
    assert repair(folder, dry_run=True).redo == [0]
    assert contents(folder) == before
    assert not (folder / "set-aside").exists()


def test_leftovers_of_the_dead_are_set_aside(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    mine = temporary_path(folder / "shard-00007.h5")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}s", "-999999999s"))
    dead.touch()
    assert repair(folder).moved == [dead.name]
    assert verify(folder) == []


def test_a_folder_that_is_worked_on_is_left_alone(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    os.truncate(folder / Manifest.read(folder).data_name(0), 10)
    with Claims(folder) as claims:
        claim = claims.take(claim_name(0))
        assert claim is not None
        with claim, pytest.raises(ShardError, match="is at work on shard-00000"):
            repair(folder)
    assert repair(folder).redo == [0]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shard folder"):
        repair(tmp_path / "nowhere")
    with pytest.raises(ShardError, match="not a shard folder"):
        repair(tmp_path)


def test_a_plan_that_names_a_video_twice(shard_set: ShardSet) -> None:
    folder, _ = shard_set
    plan = list(read_plan(folder) or ())
    write_plan(folder, [*plan, plan[0]._replace(shard=9)])
    assert "'a.mp4' is planned twice" in " ".join(map(str, verify(folder)))


def test_the_command(shard_set: ShardSet, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = shard_set
    assert run(["shards", "repair", str(folder)]) == 0
    assert "nothing to repair" in capsys.readouterr().out
    name = Manifest.read(folder).data_name(0)
    os.truncate(folder / name, 10)
    assert run(["shards", "verify", str(folder)]) == 1
    assert "regionvlp shards repair" in capsys.readouterr().out
    assert run(["shards", "repair", str(folder), "--dry-run", "--json", "-"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["moved"], values["redo"], values["dry_run"]) == (["shard-00000.json", name], [0], True)
    (folder / "plan.parquet").unlink()
    assert run(["shards", "repair", str(folder)]) == 1
    assert "nothing knows what shards 0 held" in capsys.readouterr().out
    assert run(["shards", "repair", str(folder / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
