"""Runs that could learn or measure nothing are refused; what is likely a mistake is said."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_world import small_config, write_captions, write_shards

import regionvlp
from regionvlp.config import merge
from regionvlp.errors import ConfigError, InputError, RegionVLPError
from regionvlp.pipelines.cli import run
from regionvlp.training.config import run_config
from regionvlp.training.logbook import read_log
from regionvlp.training.preparing import prepare
from regionvlp.training.run import check_out, train
from regionvlp.training.saving import latest, path_of


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Any]:
    """A configuration that trains in a moment."""
    return small_config(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"batch_size": 1}}, "contrast of one pair learns nothing"),
        ({"train": {"accumulate": 8}}, "8 in 8 parts: a contrast of one pair"),
        ({"train": {"best_metric": "recall"}}, "no evaluation gives 'recall'"),
        ({"train": {"best_metric": "t2v/MedR", "best_is": "highest"}}, "of t2v/MedR the lowest value is the best"),
    ],
)
def test_settings_that_lead_nowhere(world: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(run_config(world, change))


def test_a_warm_up_longer_than_the_run(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="warmup_steps 1000: the run or stage ends after 6 steps"):
        regionvlp.train(merge(world, {"optim": {"warmup_steps": 1000}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_captions_that_the_length_makes_equal(
    world: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"the same words at the start and then {word}" for word in "abcdefghijklmnop"]
    captions = write_captions(tmp_path / "long.csv", texts)
    source = {"captions": str(captions), "shards": str(tmp_path / "shards")}
    short = {"data": {"sources": [source], "text_length": 6}}
    with pytest.raises(InputError, match="text_length 6 cuts 16 of 16 unlike captions, and only 1 of them stay unlike"):
        prepare(run_config(world, short))
    write_captions(captions, [*texts[:4], *(f"clip {i} is here" for i in range(12))])
    prepare(run_config(world, short))
    assert "text_length 6 cuts the end of 4 of 16 unlike captions; 3 become equal to others" in caplog.text


def test_nothing_to_evaluate_on_is_said(world: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    prepare(run_config(world))
    assert "eval.source is not set, so nothing is evaluated" in caplog.text
    caplog.clear()
    prepare(run_config(world, {"train": {"eval_every": "never"}}))
    assert "eval.source" not in caplog.text


def test_a_first_start_that_failed_blocks_nothing(world: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RegionVLPError, match="diverged"):
        regionvlp.train(merge(world, {"optim": {"lr": 1e30}, "train": {"save_every": "never"}}), tmp_path / "run")
    regionvlp.train(world, tmp_path / "run")
    assert {row["step"] for row in read_log(tmp_path / "run")} == {6}


def test_a_dry_run_refuses_what_the_run_would(
    world: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps(world))
    arguments = ["pretrain", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]
    assert run(arguments) == 0
    assert run([*arguments, "--dry-run"]) == 0
    capsys.readouterr()
    assert run([*arguments, "--dry-run", "--set", "optim.lr=0.1"]) == 2
    assert "is of another run: optim.lr is 0.001 there and 0.1 here" in capsys.readouterr().err
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    assert run([*arguments[:-1], str(tmp_path / "photos"), "--dry-run"]) == 2


def test_moved_data_goes_on_and_changed_data_is_named(world: dict[str, Any], tmp_path: Path) -> None:
    regionvlp.train(merge(world, {"train": {"max_steps": 2}, "optim": {"schedule": "constant"}}), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    os.rename(tmp_path / "shards", tmp_path / "elsewhere" / "s")
    os.rename(tmp_path / "captions.csv", tmp_path / "elsewhere" / "renamed.csv")
    moved = {"captions": str(tmp_path / "elsewhere/renamed.csv"), "shards": str(tmp_path / "elsewhere/s")}
    longer = {"data": {"sources": [moved]}, "optim": {"schedule": "constant"}}
    regionvlp.train(merge(world, longer | {"train": {"max_steps": 4}}), tmp_path / "run")
    assert latest(tmp_path / "run").name == "step-00000004"  # type: ignore[union-attr]
    config = run_config(merge(world, longer))
    write_shards(tmp_path / "other", seed=1)
    other = run_config(merge(world, {"data": {"sources": [moved | {"shards": str(tmp_path / "other")}]}}))
    with pytest.raises(InputError, match=r"data.sources.0: its shards changed"):
        check_out(prepare(other), tmp_path / "run")
    text = (tmp_path / "elsewhere/renamed.csv").read_text()
    (tmp_path / "elsewhere/renamed.csv").write_text(text + "clip00,one more\n")
    with pytest.raises(InputError, match=r"its pairs and captions changed \(pairs 16 then, 17 now\)"):
        check_out(prepare(config), tmp_path / "run")


def test_a_run_says_what_happens(world: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="regionvlp")
    source = world["data"]["sources"][0]
    evaluated = merge(world, {"eval": {"source": source}, "train": {"eval_every": "2 steps", "max_steps": 4}})
    regionvlp.train(evaluated, tmp_path / "run")
    assert "step 2: R@1 " in caplog.text
    assert "best: step " in caplog.text
    caplog.clear()
    regionvlp.train(merge(evaluated, {"train": {"max_steps": 6}}), tmp_path / "run")
    assert "resumed from step 4 of 6" in caplog.text
    assert "planned with 4 steps and now has 6: with schedule cosine the learning rate goes on at" in caplog.text


def test_a_copy_of_a_run_that_is_not_whole_goes_on_from_what_is(
    world: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="regionvlp")
    kept = merge(world, {"train": {"keep": 9}})
    regionvlp.train(merge(kept, {"train": {"max_steps": 4}}), tmp_path / "run")
    (path_of(tmp_path / "run", 4) / "tokenizer.json").unlink()
    regionvlp.train(kept, tmp_path / "run")
    assert "step-00000004 is damaged, trying the one before: " in caplog.text
    assert "tokenizer.json is missing" in caplog.text
    assert "resumed from step 2 of 6" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shard_that_disappears_ends_the_run_by_its_name(
    world: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    config = run_config(merge(world, {"train": {"workers": workers}, "data": {"unreadable": 0.9}}))
    prepared = prepare(config)
    (tmp_path / "shards" / "shard-00000.h5").unlink()
    with pytest.raises(InputError, match=r"cannot read .*shard-00000\.h5: No such file"):
        train(config, tmp_path / "run", prepared=prepared)
    assert "left out" not in caplog.text


def test_a_folder_that_no_run_can_be_in_is_one_line(world: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file/run: Not a directory"):
        regionvlp.train(world, tmp_path / "file" / "run")


def test_a_second_process_is_refused_while_the_first_trains(world: dict[str, Any], tmp_path: Path) -> None:
    slow = merge(world, {"train": {"epochs": 100_000, "max_steps": None}})
    (tmp_path / "c.yaml").write_text(json.dumps(slow))
    command = [sys.executable, "-P", "-m", "regionvlp", "pretrain", "--config", str(tmp_path / "c.yaml")]
    first = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "run" / "checkpoints").is_dir():
            assert first.poll() is None, first.communicate()
        with pytest.raises(InputError, match=f"is being trained by process {first.pid} on "):
            regionvlp.train(slow, tmp_path / "run")
    finally:
        first.kill()
        first.communicate()
