"""What 0.1.0 left on disk opens, and gives the same numbers; see ``fixtures/v0_1_0/README.md``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regionvlp
from regionvlp.config import read_yaml
from regionvlp.errors import InputError
from regionvlp.evaluation.metrics import retrieval_metrics
from regionvlp.training.config import read_run_config
from regionvlp.training.logbook import read_log

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "v0_1_0"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fixture, copied; the current folder, so that its ``config.yaml`` finds its data."""
    folder = tmp_path / "old"
    shutil.copytree(FIXTURE, folder)
    for file in folder.rglob("config.yaml"):
        file.write_text(file.read_text(encoding="utf-8").replace("@HERE@", str(folder)), encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def expected() -> dict[str, Any]:
    values: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
    return values


def test_a_configuration_of_the_old_form_means_the_same(old: Path) -> None:
    config = read_run_config(old / "run" / "config.yaml")
    assert config.data.clips.model_dump().items() >= {
        "frames": 2, "sampling": "default", "regions": 3, "loc_dim": 6, "padding": "edge", "in_memory": False,
    }.items()  # fmt: skip
    assert read_run_config(old / "config.yaml").data == config.data


@pytest.mark.parametrize("step", [10, 20])
@pytest.mark.parametrize("shards", ["shards-hdf5", "shards-parquet"])
def test_checkpoints_and_shards_give_the_same_similarities(
    old: Path, expected: dict[str, Any], step: int, shards: str
) -> None:
    found = regionvlp.evaluate(
        old / "run" / "checkpoints" / f"step-{step:08d}",
        annotations=old / "captions.csv", shards=old / shards, split="test", device="cpu",
    )  # fmt: skip
    np.testing.assert_allclose(found.retrieval.similarity, expected["similarity"][str(step)], rtol=0, atol=2e-5)


def test_a_run_is_opened_at_its_best_and_measured_the_same(old: Path, expected: dict[str, Any]) -> None:
    opened = regionvlp.load_checkpoint(old / "run")
    assert opened.path.name == "step-00000010"
    found = regionvlp.evaluate(opened)
    metrics = retrieval_metrics(found.retrieval.similarity, found.retrieval.target)
    for key, values in expected["metrics"].items():
        assert metrics[key] == values  # type: ignore[literal-required]


def test_the_recipe_trains_to_the_same_losses(old: Path, expected: dict[str, Any]) -> None:
    regionvlp.train(old / "config.yaml", old / "again")
    found = read_log(old / "again")
    assert len(found) == len(expected["log"])
    for now, then in zip(found, expected["log"], strict=True):
        for key, value in then.items():
            assert now[key] == pytest.approx(value, rel=1e-4), (now["step"], key)


def test_a_run_that_drew_otherwise_is_not_gone_on_with(old: Path) -> None:
    with pytest.raises(InputError, match="another version of regionvlp, which chose samples in another way"):
        regionvlp.train(old / "config.yaml", old / "run")
    values = read_yaml(old / "config.yaml")
    regionvlp.train(values | {"init": str(old / "run")}, old / "new")  # what the hint says
