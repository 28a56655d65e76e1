"""A handful of the runs of ``regionvlp bench crash``, with a detector that costs nothing, and what it compares."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionvlp.pipelines.bench.crash import rows_of
from regionvlp.pipelines.bench.crashing import LAUNCHERS, PHASES, Attack, Kill, Ring, differences
from regionvlp.pipelines.bench.fork_server import ForkServer
from regionvlp.pipelines.cli import run

DETECTORS = Path(__file__).resolve().parents[1] / "extract"
# Halves would bring torch along.
OPTIONS = ("--set", "detector.factory=faults.arithmetic:make", "--set", "shards.dtype=float32")
IMPORTS = (
    "regionvlp.pipelines.extract",
    "regionvlp.extract.run.session",
    "regionvlp.shards.hdf5",
    "regionvlp.shards.parquet",
)


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ring]:
    path = os.pathsep.join(filter(None, (str(DETECTORS), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("SECONDS_PER_BATCH", "0.03")
    with ForkServer(IMPORTS) as server:
        yield Ring(tmp_path / "ring", server, OPTIONS)


def test_runs_that_are_killed_and_resumed(ring: Ring) -> None:
    rng = random.Random(1)
    attacks = [ring.attack(launcher, False, rng) for launcher in LAUNCHERS]
    attacks.append(ring.attack("inprocess", True, rng))
    assert [attack.faults for attack in attacks] == [[]] * len(attacks)
    assert sum(len(attack.kills) for attack in attacks) >= 2


def test_what_differs_is_found(ring: Ring, tmp_path: Path) -> None:
    whole, other = ring.undisturbed("hdf5"), ring.undisturbed("parquet")

    def copy() -> Path:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        return Path(shutil.copytree(whole, tmp_path / "copy"))

    assert differences(whole, copy()) == []
    assert any("has other bytes" in fault for fault in differences(whole, other))
    (copy() / "notes.tmp").touch()
    assert differences(whole, tmp_path / "copy") == ["notes.tmp was left behind"]
    (copy() / "shard-00002.json").unlink()
    assert any("not done" in fault for fault in differences(whole, tmp_path / "copy"))
    shard = copy() / "shard-00003.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert any("checksum" in fault for fault in differences(whole, tmp_path / "copy"))


def test_rows_count_runs_and_kills() -> None:
    attacks = [
        Attack("inprocess", "hdf5", True, [Kill("all", "shard"), Kill("child", "end")]),
        Attack("shared", "parquet", False, [Kill("all", "shard")], ["lost"]),
    ]
    values = {str(row["name"]): row["value"] for row in rows_of(attacks)}
    assert (values["runs"], values["cold"], values["kills"], values["unequal"]) == (2, 1, 3, 1)
    assert (values["killed_in_shard"], values["killed_all"], values["killed_child"]) == (2, 2, 1)
    assert (values["inprocess_kills"], values["inprocess_unequal"], values["shared_unequal"]) == (2, 0, 1)
    assert sum(float(str(values[f"killed_in_{phase}"])) for phase in PHASES) == 3


def test_a_launcher_that_there_is_not_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "crash", "--launchers", "inproces"]) == 2
    error = capsys.readouterr().err
    assert "did you mean 'inprocess'" in error
    assert error.count("\n") == 1
