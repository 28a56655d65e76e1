"""From a public DemoVLP file to its retrieval numbers, as a user types it; and every other file given by mistake."""

from __future__ import annotations

import argparse
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from regionvlp.checkpoints.folder import load_checkpoint
from regionvlp.checkpoints.public.demovlp import load_answer_head
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError
from regionvlp.losses import REGION_WORD_PRESETS, global_similarity, region_word_similarity
from regionvlp.losses.settings import LossSettings
from regionvlp.models import DualEncoderSettings
from regionvlp.models.heads import AnswerHead
from regionvlp.models.settings import AnswerHeadSettings
from regionvlp.pipelines.cli import run
from regionvlp.regions import VideoRegions
from regionvlp.shards import Manifest, ShardWriter, open_shards
from regionvlp.systems.registry import build_system

CAPTIONS = ["a man talks about a car", "a dog runs on the grass", "two women cook", "a red ball is thrown far away",
            "a child sings", "the car stands on the grass"]  # fmt: skip
FEATURES = 16
PUBLIC = {"model.video.": "object_model.", "model.text.model.": "text_model.", "model.text.projection.": "txt_proj.1."}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    TextTokenizer.train(CAPTIONS, 300).save(folder)
    return folder


def public_state(tokenizer: Path, **video: Any) -> OrderedDict[str, Tensor]:
    """Random weights of a small model under the public names."""
    torch.manual_seed(0)
    sizes = {
        "video": {"feature_width": FEATURES, "loc_dim": 6, "width": 64, "depth": 1, "heads": 1, "frames": 2,
                  "regions": 5, "attention": "frame", "final_norm": False, "joint_width": 8, **video},
        "text": {"width": 64, "depth": 1, "heads": 1, "mlp_width": 32, "max_length": 120, "joint_width": 8},
    }  # fmt: skip
    words = TextTokenizer.load(tokenizer).vocab_size
    losses = LossSettings(region_word=REGION_WORD_PRESETS["public"])
    task = build_system("demovlp", DualEncoderSettings.model_validate(sizes), losses, vocab_size=words)
    names: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in task.state_dict().items():
        prefix = next(prefix for prefix in PUBLIC if name.startswith(prefix))
        names[PUBLIC[prefix] + name.removeprefix(prefix)] = tensor.normal_(std=0.3) if tensor.ndim > 1 else tensor
    return names


def save(path: Path, state: Mapping[str, Tensor], *, parallel: bool = False, as_zip: bool = True, **more: Any) -> Path:
    """The layout of the public trainer's files."""
    named = OrderedDict((f"module.{name}" if parallel else name, tensor) for name, tensor in state.items())
    content = {"arch": "ObjectRelation", "epoch": 7, "state_dict": named, "optimizer": {"state": {}}, **more}
    torch.save(content, path, _use_new_zipfile_serialization=as_zip)
    return path


def convert(path: Path, tokenizer: Path, out: Path, *options: str) -> int:
    return run(["weights", "convert", "demovlp", str(path), "--out", str(out), f"--tokenizer={tokenizer}", *options])


def write_shards(folder: Path, videos: int, frames: int, regions: int, width: int = FEATURES) -> Path:
    manifest = Manifest(
        format="hdf5", dtype="float32", frames=frames, regions=regions, feature_width=width, shard_size=videos,
        detector={"name": "somebody's"}, video={},
    )  # fmt: skip
    manifest = Manifest.create_or_check(folder, manifest)
    rng = np.random.default_rng(0)
    shape = frames, regions
    with ShardWriter(folder, 0, manifest) as writer:
        for i in range(videos):
            corners = rng.uniform(0, 100, (*shape, 2, 2)).astype(np.float32)
            found = rng.integers(2, regions + 1, frames).astype(np.int32)
            real = np.arange(regions) < found[:, None]
            writer.add(
                VideoRegions(
                    f"v{i}.mp4", np.arange(frames), np.arange(frames) / 2.0, np.full((frames, 2), 120, np.int32),
                    (rng.normal(size=(*shape, width)) * real[..., None]).astype(np.float32),
                    (np.concatenate((corners.min(2), corners.max(2)), -1) * real[..., None]).astype(np.float32),
                    np.sort(rng.random(shape).astype(np.float32))[:, ::-1] * real, np.zeros(shape, np.int32),
                    np.zeros(shape, np.int32), np.zeros(shape, np.float32), found,
                )
            )  # fmt: skip
        writer.finish()
    return folder


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Options that name six captions and their videos."""
    captions = tmp_path / "captions.csv"
    captions.write_text("video_id,caption\n" + "".join(f"v{i},{text}\n" for i, text in enumerate(CAPTIONS)))
    shards = write_shards(tmp_path / "shards", len(CAPTIONS), 2, 7)
    return ["--annotations", str(captions), "--shards", str(shards)]


@pytest.mark.parametrize(
    ("layout", "video"),
    [
        ({}, {}),
        ({"parallel": True}, {"time_attention": True}),
        ({"parallel": True, "as_zip": False}, {"regions": 30, "loc_dim": 7}),
    ],
    ids=["one-process", "parallel-timeattn", "legacy-other-sizes"],
)
def test_convert_then_eval(
    layout: dict[str, Any],
    video: dict[str, Any],
    tokenizer: Path,
    data: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = public_state(tokenizer, **video)
    extra = {"text_model.embeddings.position_ids": torch.arange(120)[None]}
    path, out = save(tmp_path / "public.pth", {**state, **extra}, **layout), tmp_path / "model"
    assert convert(path, tokenizer, out, "--json", "-") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["epoch"], made["answers"], made["text_length"]) == (7, None, 100)
    assert made["parameters"] == sum(tensor.numel() for tensor in state.values())
    assert sorted(file.name for file in out.iterdir()) == [
        "config.yaml", "detector.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip

    report = tmp_path / "metrics.json"
    arguments = ["eval", "csv", "--checkpoint", str(out), *data, "--json", str(report)]
    assert run(arguments) == 0
    said = capsys.readouterr().out
    assert "text to video, public" in said
    assert "For comparison with published numbers only." in " ".join(said.split())
    found = json.loads(report.read_text())
    rows, columns = similarities(out, tmp_path / "shards")
    exact, public = rows + columns.T, rows + columns
    right = np.diagonal(exact)[:, None]
    ranks = (exact > right).sum(1) + ((exact == right).sum(1) - 1) / 2
    assert found["t2v"]["MeanR"] == pytest.approx(ranks.mean() + 1)
    assert found["public"]["t2v"]["MeanR"] == pytest.approx((public > np.diagonal(public)[:, None]).sum(1).mean() + 1)
    assert found["public"]["t2v"]["R1"] == pytest.approx(100 * np.mean(~(public > np.diagonal(public)[:, None]).any(1)))


def similarities(folder: Path, shards: Path) -> tuple[np.ndarray, np.ndarray]:
    """The global similarity with texts as rows and the local one with videos as rows, one pair at a time."""
    checkpoint = load_checkpoint(folder)
    config, videos = checkpoint.config, open_shards(shards)
    slots, rows, columns = config.data.clips.regions, [], []
    encoded = []
    for video_id in videos.video_ids:
        regions = videos[video_id]
        # The public reader's way: the frame's last region again in every slot that is left, masked.
        index = np.minimum(np.arange(slots), regions.num_regions[:, None] - 1)
        at = np.arange(regions.num_frames)[:, None]
        boxes = regions.boxes[at, index] / 120
        size = boxes[..., 2:] - boxes[..., :2]
        location = np.concatenate([boxes, size, size.prod(-1, keepdims=True)], -1)[..., : config.data.clips.loc_dim]
        batch = {
            "features": torch.from_numpy(regions.features[at, index])[None],
            "location": torch.from_numpy(location.astype(np.float32))[None],
            "region_mask": torch.from_numpy(np.arange(slots) < regions.num_regions[:, None])[None],
        }
        with torch.no_grad():
            encoded.append(checkpoint.system.encode_video(batch))
    for caption in CAPTIONS:
        with torch.no_grad():
            text = checkpoint.system.encode_text(checkpoint.tokenizer.encode([caption], 100, 100))
            settings = REGION_WORD_PRESETS["public"]
            rows.append([float(global_similarity(video=video, text=text)) for video in encoded])
            columns.append([float(region_word_similarity(video=v, text=text, settings=settings)) for v in encoded])
    return np.array(rows), np.array(columns).T


def test_more_frames_and_other_regions(
    tokenizer: Path, data: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint of 2 frames and 5 regions, asked to read 3 frames and 4 or 7 regions."""
    path, out = save(tmp_path / "public.pth", public_state(tokenizer)), tmp_path / "model"
    assert convert(path, tokenizer, out, "--frames", "3") == 0
    temporal = load_checkpoint(out).system.state_dict()["model.video.temporal_embed"]
    assert temporal.shape[1] == 3
    assert not temporal[:, 2].any()
    for regions in ("4", "7"):
        assert run(["eval", "csv", "--checkpoint", str(out), *data, "--regions", regions]) == 0
    assert "does not say which detector it learnt from: whether these shards fit it cannot be checked" in caplog.text


def test_finetune_from_a_converted_checkpoint(tokenizer: Path, data: list[str], tmp_path: Path) -> None:
    path, out = save(tmp_path / "public.pth", public_state(tokenizer)), tmp_path / "model"
    assert convert(path, tokenizer, out) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["data"] |= {"sources": [{"captions": data[1], "shards": data[3]}]}
    config["data"]["clips"]["regions"] = 6
    config["model"]["video"] |= {"frames": 4, "regions": 6}
    config["optim"] |= {"lr": 1e-12, "schedule": "constant"}
    config["train"] |= {"batch_size": 6, "epochs": 1, "workers": 0, "device": "cpu"}
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(config))
    recipe, folder = tmp_path / "tune.yaml", tmp_path / "run"
    assert run(["finetune", "--config", str(recipe), "--init", str(out), "--out", str(folder)]) == 0
    before, after = (load_checkpoint(folder) for folder in (out, tmp_path / "run"))
    assert after.detector == {"name": "somebody's"}
    state = after.system.state_dict()
    for name, tensor in before.system.state_dict().items():
        kept = state[name][:, :1] if name.endswith("_embed") else state[name]
        torch.testing.assert_close(kept, tensor[:, :1] if name.endswith("_embed") else tensor, rtol=0, atol=1e-6)


def test_finetune_with_another_width_points_to_the_config(
    tokenizer: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, recipe = tmp_path / "model", tmp_path / "tune.yaml"
    assert convert(save(tmp_path / "public.pth", public_state(tokenizer)), tokenizer, out) == 0
    config = yaml.safe_load((out / "config.yaml").read_text())
    config["data"] |= {"sources": [{"captions": data[1], "shards": data[3]}]}
    config["model"]["video"] |= {"width": 32}
    recipe.write_text(yaml.safe_dump(config))
    assert run(["finetune", "--config", str(recipe), "--init", str(out), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "is of another architecture" in said
    assert f"--config {out / 'config.yaml'}" in said


def answer_head(width: int) -> dict[str, Tensor]:
    """A head of nine answers under the public names."""
    head = AnswerHead(AnswerHeadSettings(answers=9, width=width, hidden=6))
    return {f"head.{name}": tensor for name, tensor in head.state_dict().items()}


def test_a_question_answering_checkpoint_keeps_its_head(
    tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = answer_head(8)
    path, out = save(tmp_path / "qa.pth", {**public_state(tokenizer), **tensors}, parallel=True), tmp_path / "model"
    assert convert(path, tokenizer, out, "--json", "-") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["answers"] == 9
    assert "load_answer_head" in said.err
    assert "regionvlp eval" not in said.err
    found = load_answer_head(out)
    assert found.settings.answers == 9
    for name, tensor in tensors.items():
        assert torch.equal(found.state_dict()[name.removeprefix("head.")], tensor)
    load_checkpoint(out)
    plain = tmp_path / "plain"
    assert convert(save(tmp_path / "plain.pth", public_state(tokenizer)), tokenizer, plain) == 0
    assert "next: regionvlp eval msrvtt" in capsys.readouterr().out
    with pytest.raises(InputError, match="no question-answering head"):
        load_answer_head(plain)


def test_a_bare_state_dict_is_as_good(tokenizer: Path, tmp_path: Path) -> None:
    state = public_state(tokenizer)
    torch.save(state, tmp_path / "bare.pth")
    save_file(state, tmp_path / "bare.safetensors")
    for suffix in ("pth", "safetensors"):
        assert convert(tmp_path / f"bare.{suffix}", tokenizer, tmp_path / suffix) == 0


def test_code_in_the_file_is_not_run(tokenizer: Path, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'mark'}",)

    path = save(tmp_path / "public.pth", public_state(tokenizer), config=Attack())
    assert convert(path, tokenizer, tmp_path / "model") == 0
    assert not (tmp_path / "mark").exists()


ONE = torch.ones(2, 2)
STRANGERS = {
    "Frozen in Time": {"module.video_model.cls_token": ONE, "module.vid_proj.0.weight": ONE},
    "MCQ or MILES": {"video_model.cls_token": ONE, "text_proj.1.weight": ONE},
    "a ViT": {"patch_embed.proj.weight": ONE, "blocks.0.norm1.weight": ONE},
    "a DistilBERT": {"transformer.layer.0.attention.q_lin.weight": ONE, "embeddings.LayerNorm.weight": ONE},
    "a BERT": {"bert.encoder.layer.0.output.dense.weight": ONE},
    "a CLIP": {"visual.proj": ONE},
    "a region detector": {"backbone.res2.0.conv1.weight": ONE, "roi_heads.box_predictor.cls_score.weight": ONE},
    "a checkpoint of regionvlp": {"model.video.cls_token": ONE},
    "holds 1 tensors such as 'something'": {"something": ONE},
}
UNNAMED = {"a region detector", "holds 1 tensors such as 'something'"}


@pytest.mark.parametrize("name", STRANGERS)
def test_another_file_is_named(name: str, tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = save(tmp_path / "stranger.pth", STRANGERS[name]), tmp_path / "model"
    commands = {"demovlp": name, "detector": "no known detector family" if name in UNNAMED else name}
    said_by(commands, path, out, capsys)


def test_a_file_without_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"demovlp": "no named tensors", "detector": "no tensors under names"}
    said_by(commands, save(tmp_path / "empty.pth", {}), tmp_path / "model", capsys)


def said_by(commands: dict[str, str], path: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command of ``weights convert`` refuses ``path`` in one line with its message."""
    for command, message in commands.items():
        assert run(["weights", "convert", command, str(path), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert message in said
        assert not out.exists()


@pytest.mark.parametrize("layout", [{}, {"parallel": True}, {"config": argparse.Namespace()}, {"as_zip": False}])
def test_a_demovlp_checkpoint_is_no_detector(
    layout: dict[str, Any], tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "public.pth", public_state(tokenizer), **layout)
    for command in (["convert", str(path), "--out", str(tmp_path / "model")], ["info", str(path)]):
        assert run(["weights", *command]) == 2
        said = capsys.readouterr().err
        assert "public.pth is a DemoVLP checkpoint, not a region detector" in said
        assert f"regionvlp weights convert demovlp {path} --out DIR" in said


def test_a_converted_folder_is_one(tokenizer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, again = tmp_path / "model", tmp_path / "again"
    assert convert(save(tmp_path / "public.pth", public_state(tokenizer)), tokenizer, out) == 0
    assert convert(out, tokenizer, again) == 2
    assert "is a folder, not a weights file. Hint: it is converted already" in capsys.readouterr().err
    assert run(["weights", "info", str(out)]) == 2
    assert "is a checkpoint of regionvlp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("object_model.cls_token"), "object_model.cls_token is missing"),
        (lambda state: state.pop("object_model.blocks.0.attn.qkv.bias"), "blocks.0.attn.qkv.bias"),
        (lambda state: state.update({"object_model.more": ONE}), "object_model.more"),
        (lambda state: state.update({"object_model.proj.weight": ONE[0]}), "object_model.proj.weight has shape [2]"),
        (lambda state: state["object_model.cls_token"].fill_(float("nan")), "not numbers"),
        (lambda state: state.update({"head.fc.weight": ONE}), "answers no questions"),
        (lambda state: state.update(answer_head(8) | {"head.weird": ONE}), "1 unexpected (head.weird)"),
        (lambda state: state.update(answer_head(6)), "a head for tokens of width 6, and a model that gives 8"),
    ],
)
def test_parts_that_are_missing_or_odd(
    change: Callable[[dict[str, Tensor]], Any],
    message: str,
    tokenizer: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = public_state(tokenizer)
    change(state)
    assert convert(save(tmp_path / "odd.pth", state), tokenizer, tmp_path / "model") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "model").exists()


def test_mistakes_around_the_file(
    tokenizer: Path, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(code: int) -> str:
        assert code == 2
        text = capsys.readouterr().err
        assert text.count("error: ") == 1
        return text

    path, out = save(tmp_path / "public.pth", public_state(tokenizer)), tmp_path / "model"
    base = ["weights", "convert", "demovlp"]
    assert "check the path" in said(convert(tmp_path / "nowhere.pth", tokenizer, out))
    text = said(run([*base, str(path), "--out", str(out)]))  # the tests have no hub
    assert "distilbert-base-uncased" in text
    assert "--tokenizer" in text
    TextTokenizer.train(["other words"], 100).save(tmp_path / "other")
    assert "bert-base-uncased" in said(convert(path, tmp_path / "other", out))
    assert "--heads" in said(convert(save(tmp_path / "a.pth", public_state(tokenizer, width=48)), tokenizer, out))
    text = said(convert(path, tokenizer, out, "--heads", "5"))
    assert "width 64, which 5 attention heads do not divide" in text
    assert "--heads" in text
    assert "exists already" in said(convert(path, tokenizer, tmp_path))
    path.write_bytes(path.read_bytes()[:2000])
    assert "damaged" in said(convert(path, tokenizer, out))
    assert not out.exists()

    assert convert(save(path, public_state(tokenizer)), tokenizer, out) == 0
    capsys.readouterr()
    wide = write_shards(tmp_path / "wide", len(CAPTIONS), 1, 3, width=20)
    text = said(run(["eval", "csv", "--checkpoint", str(out), *data[:3], str(wide)]))
    assert "have 20 features, the model reads 16" in text
