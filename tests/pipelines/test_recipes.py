"""The recipes that come along, dry-run over tiny shards with data sets in their public layouts; how they are found."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regionvlp.config import read_yaml
from regionvlp.configs import find_config, shipped
from regionvlp.data.datasets import didemo, lsmdc, msrvtt, msvd
from regionvlp.errors import InputError
from regionvlp.extract.sources.opening import open_source
from regionvlp.losses.settings import GroupSettings
from regionvlp.pipelines.cli import run
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest
from regionvlp.training.config import run_config

CLIPS = 16  # of a part to train on; half as many to measure on
HELD_OUT = CLIPS // 2
FRAMES = 8
PRETRAIN = ["demovlp_webvid_cc3m", "demovlp_corrected", "demovlp_curriculum"]
FINETUNE = ["msrvtt", "msvd", "didemo", "lsmdc"]
# What makes a recipe tiny: towers, data, batches. Losses, rates, formats and schedules stay.
TOWER = ["width=16", "depth=1", "heads=2", "joint_width=8", "pretrained=null"]
TINY = [
    *(f"model.{side}.{setting}" for side in ("video", "text") for setting in TOWER),
    "model.video.feature_width=16",
    "model.video.regions=5",
    "data.clips.regions=5",
    "model.text.mlp_width=32",
    "loss.negatives.group=4",
    "train.batch_size=8",
    "train.workers=0",
    "train.device=cpu",
]  # fmt: skip


@pytest.fixture
def write_set(
    tmp_path: Path,
    make_manifest: Callable[..., Manifest],
    make_video: Callable[..., VideoRegions],
    write_shard: Callable[..., None],
) -> Callable[..., None]:
    """Writes one shard of some videos, where a recipe says it lies."""

    def write(name: str, ids: list[str], frames: int = FRAMES) -> None:
        manifest = make_manifest(frames=frames, shard_size=len(ids))
        write_shard(tmp_path / name / "shards", 0, [make_video(one, frames) for one in ids], manifest)

    return write


@pytest.fixture
def data(tmp_path: Path, write_set: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    """All data sets, side by side as the recipes name them; the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    for name in ("webvid", "cc3m", "MSRVTT", "MSVD", "DiDeMo", "LSMDC"):
        Path(name).mkdir()
    web = [f"{number},a dog number {number},0,000001_000050,PT00H00M17S,https://x/{number}" for number in range(CLIPS)]
    header = "videoid,name,page_idx,page_dir,duration,contentUrl\n"
    Path("webvid/results_2M_train.csv").write_text(header + "\n".join(web))
    pictures = [f"person , number {number} on a bike\thttp://x/{number}.jpg" for number in range(CLIPS)]
    Path("cc3m/Train_GCC-training.tsv").write_text("\n".join(pictures))
    for name, file, frames in (("webvid", "results_2M_train.csv", FRAMES), ("cc3m", "Train_GCC-training.tsv", 1)):
        write_set(name, open_source(f"{name}/{file}").scan().column("video_id").to_pylist(), frames)
    write_downstream(write_set, monkeypatch)
    return tmp_path


def write_downstream(write_set: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"train": CLIPS, "val": HELD_OUT, "test": HELD_OUT}
    starts = {"train": 0, "val": CLIPS, "test": CLIPS + HELD_OUT}
    numbers = {part: range(starts[part], starts[part] + count) for part, count in counts.items()}
    everything = [number for part in counts for number in numbers[part]]

    monkeypatch.setattr(msrvtt, "CAPTIONS_PER_CLIP", 2)
    lists = {("1ka", "train"): (CLIPS, ("MSRVTT_train.9k.csv",)), ("1ka", "test"): (HELD_OUT, (msrvtt._TEST_CSV,))}
    monkeypatch.setattr(msrvtt, "_LISTS", lists)
    Path("MSRVTT/MSRVTT_train.9k.csv").write_text("\n".join(["video_id", *(f"video{n}" for n in numbers["train"])]))
    rows = [f"ret{n},msr{n},video{n},a man sings song {n}" for n in numbers["test"]]
    Path("MSRVTT", msrvtt._TEST_CSV).write_text("\n".join(["key,vid_key,video_id,sentence", *rows]))
    said = [{"video_id": f"video{n}", "caption": f"{who} sings song {n}"} for n in everything for who in ("he", "she")]
    Path("MSRVTT/MSRVTT_data.json").write_text(json.dumps({"sentences": said}))
    write_set("MSRVTT", [f"video{number}.mp4" for number in everything])

    for part, count in counts.items():
        monkeypatch.setitem(msvd.CLIPS, part, range(1, count + 1))
        rows = [f"a cat jumps {n}, the cat is jumping {n}, \t-x_{n}_1_9" for n in numbers[part]]
        Path("MSVD", f"MSVD_{part}.tsv").write_text("\n".join(rows))
    write_set("MSVD", [f"-x_{number}_1_9.avi" for number in everything])

    for part, count in counts.items():
        monkeypatch.setitem(didemo.CLIPS, part, count)
        moments = [{"video": f"7@N0{n}_1.mov", "description": f"{what} {n}"} for n in numbers[part] for what in "ab"]
        Path("DiDeMo", f"{part}_data.json").write_text(json.dumps(moments))
        Path("DiDeMo", f"{part}_list.txt").write_text("\n".join(f"7@N0{n}_1.mov" for n in numbers[part]))
    write_set("DiDeMo", [f"7@N0{number}_1.mp4" for number in everything])

    clip = "0001_A_Film_00.00.{:02}.000-00.01.00.000".format
    for part, count in counts.items():
        monkeypatch.setitem(lsmdc.ROWS, part, count)
        Path("LSMDC", f"{part}_list.txt").write_text("\n".join(clip(number) for number in numbers[part]))
    words = {clip(number): [["SOMEONE", "leaves", str(number)]] for number in everything}
    Path("LSMDC/raw-captions.pkl").write_bytes(pickle.dumps(words))
    write_set("LSMDC", [f"0001_A_Film/{clip(number)}.avi" for number in everything])


def tiny(name: str, *more: str) -> list[str]:
    """Options that make a recipe tiny."""
    settings = [*TINY, *more]
    if name in PRETRAIN:
        settings += ["tokenizer.name=null", "tokenizer.vocab_size=200", "optim.warmup_steps=1"]
    stages = recipe(name).get("stages", [])
    for stage in stages:
        stage["train"]["batch_size"] = 8
        stage.get("optim", {}).pop("warmup_steps", None)
    if stages:
        settings.append(f"stages={json.dumps(stages)}")
    return [word for setting in settings for word in ("--set", setting)]


def recipe(name: str) -> dict[str, Any]:
    return read_yaml(find_config(Path(name)))


@pytest.mark.parametrize("name", PRETRAIN)
def test_pre_training_recipes_run_as_they_stand(name: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pretrain", "--config", name, *tiny(name), "--dry-run", "--json", "-"]) == 0, capsys.readouterr().err
    plan = json.loads(capsys.readouterr().out)
    assert plan["pairs"] == {"results_2M_train": CLIPS, "Train_GCC-training": CLIPS}
    assert {"global_loss", "loss"} < plan["first_batch"].keys()


def test_fine_tuning_recipes_start_from_what_pre_training_made(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = PRETRAIN[0]
    assert run(["pretrain", "--config", first, *tiny(first, "train.max_steps=2")]) == 0, capsys.readouterr().err
    for name in FINETUNE:
        capsys.readouterr()
        arguments = ["finetune", "--config", name, "--init", f"runs/{first}", *tiny(name)]
        assert run([*arguments, "--dry-run", "--json", "-"]) == 0, capsys.readouterr().err
        plan = json.loads(capsys.readouterr().out)
        assert list(plan["pairs"].values()) == [CLIPS], name
        assert plan["steps"] == 10 * CLIPS // 8, name
    capsys.readouterr()
    assert run([*arguments, "--set", "train.max_steps=1"]) == 0, capsys.readouterr().err
    assert "t2v/R1" in (data / "runs/lsmdc/log.jsonl").read_text()


def test_every_training_recipe_is_valid() -> None:
    for stage in ("pretrain", "finetune"):
        for name in shipped(stage):
            values = recipe(name)
            values["data"]["sources"] = values["data"]["sources"] or [{"captions": "c.csv", "shards": "s"}]
            for part in run_config(values, source=name).staged():
                part.check_sizes()


@pytest.mark.parametrize("name", FINETUNE)
def test_fine_tuning_is_as_the_paper_has_it(name: str) -> None:
    config = run_config(recipe(name), source=name)
    optim = config.optim
    assert (optim.lr, optim.schedule, optim.milestones, optim.decay) == (1e-5, "paper", (2, 4, 8), 0.1)
    assert config.data.clips.frames == config.model.video.frames == 8
    assert config.loss.negatives == GroupSettings(group=128)
    assert config.train.epochs == 10


def test_every_recipe_has_a_name_of_its_own_and_a_sentence() -> None:
    files = sorted(find_config(Path("demo")).parents[1].glob("*/*.yaml"))
    assert len({file.stem for file in files}) == len(files)
    for file in files:
        assert find_config(Path(file.stem)) == find_config(Path(file.name)) == file
    for stage in ("pretrain", "finetune"):
        assert all(10 < len(about) < 130 for about in shipped(stage).values())
    assert {*PRETRAIN, "demo"} < shipped("pretrain").keys()
    assert {*FINETUNE} < shipped("finetune").keys()


def test_a_file_here_goes_before_one_that_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("msvd").mkdir()  # a data set's folder is no configuration
    assert find_config(Path("msvd")).name == "msvd.yaml"
    Path("demo.yaml").write_text("{}")
    assert find_config(Path("demo.yaml")) == Path("demo.yaml")
    with pytest.raises(InputError, match="no configuration msvdd here") as caught:
        find_config(Path("msvdd"))
    assert "did you mean 'msvd'?" in str(caught.value.hint)
    with pytest.raises(InputError) as caught:
        find_config(Path("zzzzzz.yaml"))
    assert "demovlp_corrected" in str(caught.value.hint)


def test_list_shows_what_comes_along(capsys: pytest.CaptureFixture[str]) -> None:
    for stage, other in (("pretrain", "finetune"), ("finetune", "pretrain")):
        assert run([stage, "--list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        listed = {line.split("  ")[0] for line in lines if not line.startswith(" ")}
        assert listed == set(shipped(stage))
        assert not listed & set(shipped(other))
