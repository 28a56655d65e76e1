"""From shards and captions to a checkpoint and its metrics, as a user types it; and every way to get it wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from regionvlp.checkpoints.folder import load_checkpoint
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.draws import Draws
from regionvlp.data.sources import open_source
from regionvlp.pipelines.cli import run
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, ShardWriter
from regionvlp.training.config import run_config
from regionvlp.training.logbook import read_log
from regionvlp.training.preparing import prepare

Edit = Callable[..., Path]


def test_pretrain_then_eval(
    recipe: Edit, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = recipe()
    assert run(["pretrain", "--config", str(config), "--dry-run", "--json", "-"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["steps"] == 6
    assert plan["pairs"] == {"train": 24}
    assert all(np.isfinite(value) for value in plan["first_batch"].values())
    assert not (tmp_path / "runs").exists()

    assert run(["pretrain", "--config", str(config), "--json", str(tmp_path / "run.json")]) == 0
    said = capsys.readouterr().out
    assert "next: regionvlp eval csv --checkpoint runs/tiny\n" in said
    assert f"regionvlp index --shards {world / 'shards'} --encoder runs/tiny --out runs/tiny-index" in said
    result = json.loads((tmp_path / "run.json").read_text())
    assert (result["step"], result["stopped_early"]) == (6, False)
    assert result["best"].keys() == {"step", "t2v/R1"}
    log = read_log(tmp_path / "runs/tiny")
    assert {row["step"] for row in log} == set(range(1, 7))
    assert any("eval/t2v/R1" in row for row in log)
    capsys.readouterr()

    # Without options: the newest run, and what its configuration evaluates on.
    assert run(["eval", "csv"]) == 0
    said = capsys.readouterr().out
    assert "8 queries, 8 videos" in said
    checkpoint = load_checkpoint(tmp_path / "runs/tiny")
    metrics = json.loads((checkpoint.path / "eval/test/metrics.json").read_text())
    assert metrics["chance"]["R1"] == pytest.approx(12.5)

    # Captions of one's own are not MSR-VTT, whoever asks.
    assert run(["eval", "msrvtt"]) == 2
    assert "no list of the 1ka test clips" in capsys.readouterr().err

    csv = tmp_path / "mine.csv"
    csv.write_text("video_id,caption\ntest/00000,a red star\ntest/00001.mp4,a blue box\n")
    arguments = ["--annotations", str(csv), "--shards", str(world / "shards"), "--json", str(tmp_path / "m.json")]
    assert run(["eval", "csv", "--checkpoint", "runs/tiny", *arguments]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["gallery"] == 2


def test_videos_kept_in_memory_give_the_same_samples(recipe: Edit, world: Path) -> None:
    settings = run_config(yaml.safe_load(recipe().read_text())).data
    kept = settings.model_copy(update={"clips": settings.clips.model_copy(update={"in_memory": True})})
    read, held = (open_source(settings.sources[0], way, training=True, seed=3) for way in (settings, kept))
    assert len(read) == len(held) == 24
    numbers, draws = range(len(read.clips.ids)), Draws((3, 2), range(len(read.clips.ids)))
    one, other = (data.clips.read_batch(numbers, data.choice, draws) for data in (read, held))
    assert all(torch.equal(one[key], other[key]) for key in ("features", "location", "region_mask"))


def test_the_same_seed_gives_the_same_run_and_resume_goes_on(recipe: Edit, tmp_path: Path) -> None:
    config = str(recipe())
    for name in ("one", "two"):
        assert run(["pretrain", "--config", config, "--out", str(tmp_path / name)]) == 0
    assert run(["pretrain", "--config", config, "--out", str(tmp_path / "three"), "--set", "train.epochs=1"]) == 0
    assert run(["pretrain", "--config", config, "--out", str(tmp_path / "three")]) == 0
    weights = [load_checkpoint(tmp_path / name).system.state_dict() for name in ("one", "two", "three")]
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in other)


def test_killed_and_started_again(recipe: Edit, tmp_path: Path) -> None:
    train = {"batch_size": 8, "epochs": 60, "log_every": 1, "workers": 0, "device": "cpu",
             "save_every": "5 steps", "eval_every": "never"}  # fmt: skip
    config = str(recipe(train=train))
    assert run(["pretrain", "--config", config, "--out", str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "regionvlp", "pretrain", "--config", config, "--out", str(out)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints/step-00000010").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run(["pretrain", "--config", config, "--out", str(out)]) == 0
    one, other = (load_checkpoint(folder).system.state_dict() for folder in (tmp_path / "whole", out))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [row["step"] for row in read_log(out)]
    assert steps == sorted(set(steps))


def test_finetune_starts_from_weights_and_may_take_more_frames(recipe: Edit, tmp_path: Path) -> None:
    config = str(recipe())
    one_frame = ["--set", "data.frames=1", "--set", "model.video.frames=1"]
    assert run(["pretrain", "--config", config, "--out", str(tmp_path / "first"), *one_frame]) == 0
    start = ["finetune", "--config", config, "--out", str(tmp_path / "second"), "--init", str(tmp_path / "first")]
    assert run([*start, "--set", "optim.lr=1e-12"]) == 0
    first, second = (load_checkpoint(tmp_path / name).system.state_dict() for name in ("first", "second"))
    assert second["model.video.temporal_embed"].shape[1] == 2
    name = "model.video.object_embedding.weight"
    torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=0)


def test_a_recipe_without_data_says_how_to_name_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", "--config", "demo.yaml"]) == 2  # found by name, wherever one is
    assert "data.sources='[{captions: FILE, shards: FOLDER}]'" in capsys.readouterr().err


def test_resume_refuses_another_vocabulary(
    recipe: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str], world: Path
) -> None:
    captions = tmp_path / "mine.jsonl"
    rows = (world / "videos/train.jsonl").read_text()
    captions.write_text(rows)
    sources = [{"captions": str(captions), "shards": str(world / "shards")}]
    config = str(recipe(data={"sources": sources, "frames": 2, "regions": 6, "text_length": 24}))
    arguments = ["pretrain", "--config", config, "--out", str(tmp_path / "run")]
    assert run([*arguments, "--set", "train.epochs=1"]) == 0
    captions.write_text(rows.replace("star", "comet").replace("circle", "moon"))
    capsys.readouterr()
    assert run(arguments) == 2
    assert "data.sources.0: its captions changed" in capsys.readouterr().err


def test_finetune_without_weights(recipe: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["finetune", "--config", str(recipe())]) == 2
    assert "--init" in capsys.readouterr().err


def test_only_a_loss_that_counts_padding_keeps_it(recipe: Edit) -> None:
    for region_word, trimmed in (({"form": "paper"}, True), ({"form": "public", "query_mean": "padded"}, False)):
        written = yaml.safe_load(recipe(loss={"region_word": region_word}).read_text())
        config = run_config(written, {"data": {"pad_text": True, "padding": "edge"}}, source="test")
        (data,) = prepare(config).datasets
        assert isinstance(data.clips, RegionClips)
        assert data.clips.trim is trimmed


def test_words_are_weighed_where_there_is_a_tagger(
    recipe: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = str(recipe(loss={"local": "taco", "word_weight": "idf"})), tmp_path / "run"
    monkeypatch.setitem(sys.modules, "nltk", None)
    assert run(["pretrain", "--config", config, "--out", str(out)]) == 2
    assert "regionvlp[tagger]" in capsys.readouterr().err
    assert not out.exists()
    tagger = SimpleNamespace(pos_tag=lambda words: [(word, "NN" if word.islower() else "DT") for word in words])
    monkeypatch.setitem(sys.modules, "nltk", tagger)
    selecting = ["--set", "data.words=nouns_and_verbs"]
    assert run(["pretrain", "--config", config, "--out", str(out), *selecting, "--set", "train.epochs=1"]) == 0
    assert min(row["taco_token_loss"] for row in read_log(out) if "loss" in row) > 0
    assert run(["eval", "csv", "--checkpoint", str(out)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.batch_size=0"], "train.batch_size"),
        (["--set", "optim.larning_rate=1"], "optim.larning_rate"),
        (["--set", "model.video.feature_width=2048"], "have 256 features, the model reads 2048"),
        (["--set", "data.loc_dim=6"], "data.clips.loc_dim 6"),
        (["--set", "data.frames=4"], "4 frames"),
        (["--set", "tokenizer.name=./nowhere"], "nowhere"),
        (["--set", "model.video.pretrained=./nowhere.pth"], "nowhere.pth"),
        (["--set", "init=./nowhere"], "nowhere"),
        (["--set", "task=demovpl"], "demovpl"),
        (["--set", "data.sources=[{captions: nowhere.csv, shards: nowhere}]"], "nowhere"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    arguments: list[str], message: str, recipe: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pretrain", "--config", str(recipe()), "--out", str(tmp_path / "run"), *arguments]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "run").exists()


def test_captions_that_do_not_fit(
    recipe: Edit, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def source(text: str) -> list[str]:
        (tmp_path / "c.csv").write_text("video_id,caption\n" + text)
        value = f"data.sources=[{{captions: {tmp_path / 'c.csv'}, shards: {world / 'shards'}}}]"
        return ["pretrain", "--config", str(recipe()), "--out", str(tmp_path / "run"), "--set", value,
                    "--set", "eval.source=null"]  # fmt: skip

    for text, message in (
        ("elsewhere,a red star\n", "elsewhere"),
        ("train/00000,\n", "without a video or a caption"),
        ("".join(f"train/{i:05d},a red star {i}\n" for i in range(4)), "batch"),
        ("".join(f"train/{i:05d},a red star\n" for i in range(4)), "all captions are the same"),
        ("train/00000,a red star\ntrain/00000,a star\n", "one clip"),
    ):
        assert run(source(text)) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_another_run_in_the_folder_is_refused(recipe: Edit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pretrain", "--config", str(recipe()), "--out", str(tmp_path / "run")]
    assert run(arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert run([*arguments, "--set", "optim.lr=0.5"]) == 2
    assert "optim.lr" in capsys.readouterr().err
    assert run([*arguments, "--resume", "never"]) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_evaluation_refuses_what_does_not_belong(
    recipe: Edit, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["eval", "csv"]) == 2
    assert "no trained run" in capsys.readouterr().err
    assert run(["pretrain", "--config", str(recipe()), "--out", "runs/a"]) == 0
    capsys.readouterr()

    manifest = Manifest.read(world / "shards")
    Manifest.create_or_check(
        tmp_path / "fresh", replace(manifest, detector={**manifest.detector, "weights": "another"})
    )
    assert run(["eval", "csv", "--shards", str(tmp_path / "fresh")]) == 2
    assert "another detector" in capsys.readouterr().err

    (tmp_path / "c.csv").write_text("video_id,caption\ntest/00000,красная звезда падает\n", encoding="utf-8")
    assert run(["eval", "csv", "--annotations", "c.csv", "--shards", str(world / "shards")]) == 2
    assert "another script" in capsys.readouterr().err

    weights = load_checkpoint("runs/a").path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(["eval", "csv"]) == 2
    assert "model.safetensors" in capsys.readouterr().err


def msrvtt_shards(folder: Path, ids: list[str]) -> None:
    """Random regions under the names that MSR-VTT's videos have."""
    manifest = Manifest(
        format="hdf5", dtype="float16", frames=1, regions=4, feature_width=16, shard_size=len(ids),
        detector={"name": "random"}, video={},
    )  # fmt: skip
    manifest = Manifest.create_or_check(folder, manifest)
    rng = np.random.default_rng(0)
    with ShardWriter(folder, 0, manifest) as writer:
        for video_id in ids:
            corners = rng.uniform(0, 100, (1, 4, 2, 2)).astype(np.float32)
            boxes = np.concatenate((corners.min(2), corners.max(2)), -1)
            writer.add(
                VideoRegions(
                    f"videos/all/{video_id}.mp4", np.zeros(1, np.int64), np.zeros(1), np.full((1, 2), 240, np.int32),
                    rng.random((1, 4, 16)).astype(np.float16), boxes, rng.random((1, 4)).astype(np.float32),
                    np.zeros((1, 4), np.int32), np.zeros((1, 4), np.int32), np.zeros((1, 4), np.float32),
                    np.full(1, 4, np.int32),
                )
            )  # fmt: skip
        writer.finish()


def test_eval_msrvtt_on_the_public_layout(
    sample_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = sample_data / "annotations" / "msrvtt"
    ids = (annotations / "high-quality/structured-symlinks/val_list_jsfusion.txt").read_text().split()
    msrvtt_shards(tmp_path / "shards", ids)
    captions = tmp_path / "c.csv"
    captions.write_text("video_id,caption\n" + "".join(f"{i},a man is talking about car {i}\n" for i in ids[:8]))
    tower = {"width": 16, "depth": 1, "heads": 2, "joint_width": 8}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({
        "tokenizer": {"name": str(sample_data / "text")},
        "data": {"sources": [{"captions": str(captions), "shards": str(tmp_path / "shards")}], "regions": 4,
                 "text_length": 32},
        "model": {"video": {**tower, "feature_width": 16, "regions": 4},
                  "text": {**tower, "mlp_width": 32, "max_length": 32}},
        "train": {"batch_size": 8, "epochs": 1, "workers": 0, "device": "cpu"},
    }))  # fmt: skip
    assert run(["pretrain", "--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 0
    arguments = ["--checkpoint", str(tmp_path / "run"), "--shards", str(tmp_path / "shards")]
    arguments += ["--annotations", str(annotations)]
    capsys.readouterr()
    assert run(["eval", "msrvtt", *arguments]) == 0
    said = capsys.readouterr().out
    assert "DemoVLP" in said
    metrics = json.loads((load_checkpoint(tmp_path / "run").path / "eval/msrvtt-1ka/metrics.json").read_text())
    assert (metrics["queries"], metrics["gallery"], metrics["split"]) == (1000, 1000, "1ka")
    assert metrics["t2v"]["R1"] < 5  # random regions

    # The full split needs 2990 videos, and says which are not there.
    assert run(["eval", "msrvtt", "--split", "full", *arguments]) == 2
    assert "2990" in capsys.readouterr().err


def test_the_shipped_recipes_are_valid() -> None:
    recipes = resources.files("regionvlp.configs")
    frozen = [f"pretrain/frozen_{frames}f.yaml" for frames in (1, 4, 8)]
    ours = [f"pretrain/{name}.yaml" for name in ("demovlp_webvid_cc3m", "demovlp_curriculum", "demo")]
    for name in (*ours, "finetune/frozen_msrvtt.yaml", *frozen):
        values = yaml.safe_load((recipes / name).read_text(encoding="utf-8"))
        values["data"]["sources"] = values["data"]["sources"] or [{"captions": "c.csv", "shards": "s"}]
        for stage in run_config(values, source=name).staged():
            stage.check_sizes()
