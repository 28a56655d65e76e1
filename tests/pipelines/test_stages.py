"""A run in stages is one run: it goes on in any of them, and its checkpoints are of the stage that wrote them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from regionvlp.checkpoints.folder import load_checkpoint
from regionvlp.config import read_yaml
from regionvlp.errors import ConfigError, InputError
from regionvlp.pipelines.cli import run
from regionvlp.training.config import run_config
from regionvlp.training.distributed import World
from regionvlp.training.logbook import read_log
from regionvlp.training.preparing import prepare
from regionvlp.training.run import describe, train
from regionvlp.training.turns import loaders_of

Edit = Callable[..., Path]
STAGES: list[dict[str, Any]] = [
    {"name": "one", "frames": 1},  # two epochs of three steps
    {"name": "two", "frames": 2, "train": {"batch_size": 12, "epochs": 1}, "optim": {"lr": 1e-4}},
    {"frames": 2, "inflation": "bilinear", "train": {"max_steps": 3}, "loss": {"use_local": False}},
]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).system.state_dict()


def test_one_run_of_three_stages(recipe: Edit, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"batch_size": 8, "epochs": 2, "log_every": 1, "workers": 0, "device": "cpu", "keep": 20}
    config, out = recipe(stages=STAGES, train=settings), tmp_path / "run"
    with caplog.at_level("INFO"):
        train(config, out)
    said = "\n".join(caplog.messages)
    assert "stage 2 of 3 (two): 2 frames, steps 7 to 8" in said
    assert "an epoch is 2 steps and sees 24 pairs of train (1.00 of its 24)" in said
    log = read_log(out)
    rates = {row["step"]: row["lr"] for row in log if "lr" in row}
    assert sorted(rates) == list(range(1, 12))
    assert [rates[step] for step in (6, 7, 8, 9)] == [1e-3, 1e-4, 1e-4, 1e-3]
    epochs = {row["step"]: row["epoch"] for row in log if "epoch" in row}
    assert (epochs[6], epochs[7], epochs[11]) == (2.0, 0.5, 1.0)  # a stage counts its own
    assert {row["step"] for row in log if "local_v2l_loss" in row} == set(range(1, 9))
    # What was saved in the first stage opens as a model of one frame, what was saved later as one of two.
    names = {path.name: path for path in (out / "checkpoints").glob("step-*")}
    assert sorted(names) == [f"step-{step:08d}" for step in (3, 6, 8, 11)]
    assert [load_checkpoint(names[name]).config.model.video.frames for name in sorted(names)] == [1, 1, 2, 2]


def test_a_later_stage_sees_other_samples_first(recipe: Edit) -> None:
    """Stages shorter than an epoch would otherwise learn from the same few clips, again and again."""
    run = run_config(read_yaml(recipe(stages=[{}, {}], train={"batch_size": 4, "workers": 0, "device": "cpu"})))

    def order(stage: int) -> list[str]:
        found = prepare(run, stage)
        (loader,) = loaders_of(found.datasets, found.config, World(), stage)
        return [clip for parts in islice(loader.read(0), 3) for clip in parts[0]["video_id"]]

    assert order(1) == order(1)
    assert set(order(1)) != set(order(0))
    first, second = (prepare(run, stage).datasets[0].seed for stage in (0, 1))
    assert (first, second != first) == (run.train.seed, True)  # a run of one stage is what it always was


@pytest.mark.parametrize("stop", [2, 6, 7, 8, 10])
def test_it_goes_on_in_any_stage_to_the_same_weights(recipe: Edit, tmp_path: Path, stop: int) -> None:
    train_settings = {"batch_size": 8, "epochs": 2, "log_every": 1, "workers": 0, "device": "cpu",
                      "save_every": "1 step", "keep": 20, "eval_every": "never"}  # fmt: skip
    config, whole, part = recipe(stages=STAGES, train=train_settings), tmp_path / "whole", tmp_path / "part"
    train(config, whole)
    shutil.copytree(whole, part)
    for path in (part / "checkpoints").glob("step-*"):
        if int(path.name[5:]) > stop:
            shutil.rmtree(path)
    train(config, part)
    one, other = weights(whole), weights(part)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert [row["step"] for row in read_log(whole)] == [row["step"] for row in read_log(part)]


def test_a_damaged_checkpoint_sends_it_back_a_stage(recipe: Edit, tmp_path: Path) -> None:
    config, whole, part = recipe(stages=STAGES[:2]), tmp_path / "whole", tmp_path / "part"
    train(config, whole)
    shutil.copytree(whole, part)
    names = sorted(path.name for path in (part / "checkpoints").glob("step-*"))
    assert names[-1] == "step-00000008"
    (part / "checkpoints" / names[-1] / "model.safetensors").write_bytes(b"half")
    train(config, part)
    one, other = weights(whole / "checkpoints" / names[-1]), weights(part / "checkpoints" / names[-1])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_more_frames_begin_where_fewer_ended(recipe: Edit, tmp_path: Path) -> None:
    """The new stage's first step starts from the weights of the old one's last, its new frame embedded by zeros."""
    config = recipe(stages=[STAGES[0], {"frames": 2, "optim": {"lr": 1e-30}, "train": {"max_steps": 1}}])
    train(config, tmp_path / "run", resume="never")
    first, second = (weights(tmp_path / f"run/checkpoints/step-0000000{step}") for step in (6, 7))
    changed = {name for name in first if first[name].shape != second[name].shape}
    assert len(changed) == 1
    assert all(torch.allclose(first[name], second[name], atol=1e-7) for name in first if name not in changed)


def test_a_dry_run_tells_of_the_first_stage_and_checks_the_others(
    recipe: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = recipe(stages=STAGES)
    plan = describe(prepare(run_config(read_yaml(config))))
    assert plan["steps"] == 6
    assert plan["stages"] == [
        "stage 1 of 3 (one): 1 frame, steps 1 to 6",
        "stage 2 of 3 (two): 2 frames, steps 7 to 8",
        "stage 3 of 3: 2 frames, steps 9 to 11",
    ]
    for second, complaint in (
        ({"train": {"batch_size": 25}}, "24 samples, fewer than one batch of 25"),
        ({"optim": {"warmup_steps": 6}}, "warmup_steps 6: the run or stage ends after 6 steps"),
    ):
        for dry in (["--dry-run"], []):
            config = recipe(stages=[STAGES[0], second])
            assert run(["pretrain", "--config", str(config), "--out", str(tmp_path / "r"), *dry]) == 2
            assert complaint in capsys.readouterr().err
            assert not (tmp_path / "r").exists()


def test_mistakes_name_the_stage(recipe: Edit) -> None:
    for stage, message in (
        ({"train": {"epoch": 3}}, r"train\.epoch.*stage 2 \(unnamed\)"),
        ({"name": "b", "optim": {"rate": 3}}, r"optim\.rate.*stage 2 \(b\)"),
        ({"model": {"video": {"width": 3}}}, r"stages\.1\.model"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_config(read_yaml(recipe(stages=[STAGES[0], stage])))


def test_a_stage_that_needs_more_frames_than_its_shards_hold(recipe: Edit, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"4 frames a clip are asked for, and its shards hold at most 2"):
        train(recipe(stages=[STAGES[0], {"frames": 4}]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_stages_are_another_run(recipe: Edit, tmp_path: Path) -> None:
    train(recipe(stages=STAGES[:2]), tmp_path / "run")
    with pytest.raises(InputError, match="stages"):
        train(recipe(stages=[*STAGES[:1], {"frames": 2, "train": {"epochs": 2}}]), tmp_path / "run")
    data = json.loads((tmp_path / "run/checkpoints/step-00000008/data.json").read_text())
    assert data["stage"] == 1
