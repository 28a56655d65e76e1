"""From a public Frozen file to a checkpoint that evaluates, as a user types it; and every file that is none."""

from __future__ import annotations

import json
import sys
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from regionvlp.checkpoints.folder import load_checkpoint
from regionvlp.checkpoints.public.frozen import OURS, read_public_frozen
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.losses.settings import GlobalLossSettings
from regionvlp.models.settings import PixelDualEncoderSettings
from regionvlp.pipelines.cli import run
from regionvlp.systems.registry import build_system

CAPTIONS = ["a man talks about a car", "a dog runs on the grass", "two women cook", "a red ball is thrown far away"]
SIZES: dict[str, Any] = {
    "video": {"image_size": 32, "patch_size": 8, "width": 64, "depth": 2, "heads": 1, "frames": 4, "joint_width": 8},
    "text": {"width": 64, "depth": 1, "heads": 1, "mlp_width": 32, "max_length": 40, "joint_width": 8},
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    TextTokenizer.train(CAPTIONS, 300).save(folder)
    return folder


def public_state(tokenizer: Path, **video: Any) -> OrderedDict[str, Tensor]:
    """Random weights of a small model under the public names."""
    torch.manual_seed(0)
    sizes = PixelDualEncoderSettings.model_validate({**SIZES, "video": {**SIZES["video"], **video}})
    words = TextTokenizer.load(tokenizer).vocab_size
    system = build_system("frozen", sizes, GlobalLossSettings(), vocab_size=words)
    names: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in system.state_dict().items():
        public, ours = max(((p, o) for p, o in OURS.items() if name.startswith(o)), key=lambda pair: len(pair[1]))
        names[public + name.removeprefix(ours)] = tensor.normal_(std=0.3) if tensor.ndim > 1 else tensor
    return names


class ConfigParser:
    """Stands where the training script's own class does; nothing can import it once it is written."""

    def __init__(self) -> None:
        self._config = {"arch": {"args": {"video_params": {"num_frames": 4}}}}
        self.resume = Path("/somewhere")


def save(path: Path, state: OrderedDict[str, Tensor], monkeypatch: pytest.MonkeyPatch, **more: Any) -> Path:
    """A file as the public trainer writes it, whose class belongs to a module that is not there."""
    module = type(sys)("parse_config")
    module.ConfigParser = ConfigParser  # type: ignore[attr-defined]
    with monkeypatch.context() as patched:
        patched.setattr(ConfigParser, "__module__", "parse_config")
        patched.setitem(sys.modules, "parse_config", module)
        named = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
        content = {"arch": "DataParallel", "epoch": 3, "state_dict": named, "optimizer": {}, "config": ConfigParser()}
        torch.save({**content, **more}, path)
    return path


def convert(path: Path, tokenizer: Path, out: Path, *options: str) -> int:
    return run(["weights", "convert", "frozen", str(path), "--out", str(out), f"--tokenizer={tokenizer}", *options])


@pytest.mark.parametrize(("frames", "inflation"), [(4, "zeros"), (2, "zeros"), (8, "nearest"), (6, "bilinear")])
def test_convert_then_load(
    frames: int,
    inflation: str,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = public_state(tokenizer)
    state["text_model.embeddings.position_ids"] = torch.arange(40)[None]  # of some versions of transformers
    path, out = save(tmp_path / "4f_stformer.pth.tar", state, monkeypatch), tmp_path / "model"
    assert convert(path, tokenizer, out, f"--frames={frames}", f"--inflation={inflation}", "--json", "-") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["epoch"], made["frames"], made["image_size"]) == (3, {"file": 4, "checkpoint": frames}, 32)
    checkpoint = load_checkpoint(out)
    assert checkpoint.config.task == "frozen"
    for name, tensor in checkpoint.system.state_dict().items():
        public, ours = max(((p, o) for p, o in OURS.items() if name.startswith(o)), key=lambda pair: len(pair[1]))
        theirs = state[public + name.removeprefix(ours)]
        if "temporal" in name:
            tensor, theirs = tensor[:, : min(frames, 4)], theirs[:, : min(frames, 4)]
            if inflation != "zeros":
                continue
        assert torch.equal(tensor, theirs)
    pixels = torch.randint(0, 256, (2, frames, 3, 32, 32), dtype=torch.uint8)
    shown = torch.ones(2, frames, dtype=torch.bool)
    assert checkpoint.system.encode_video({"pixels": pixels, "frame_mask": shown}).pooled.shape == (2, 8)
    assert checkpoint.encode_text(CAPTIONS).pooled.shape == (4, 8)


def test_nothing_of_the_file_is_run(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "mark",)

    path = save(tmp_path / "public.pth.tar", public_state(tokenizer), monkeypatch, monitor_best=Attack())
    assert "parse_config" not in sys.modules
    assert read_public_frozen(path).model.video.frames == 4
    assert "parse_config" not in sys.modules
    assert not (tmp_path / "mark").exists()


def dropped(name: str) -> Callable[[OrderedDict[str, Tensor]], object]:
    return lambda state: state.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dropped("video_model.blocks.1.timeattn.proj.bias"), "video_model.blocks.1.timeattn.proj.bias"),
        (dropped("video_model.temporal_embed"), "video_model.temporal_embed is missing"),
        (dropped("txt_proj.1.weight"), "txt_proj.1.weight is missing"),
        (lambda s: s.update({"video_model.pos_embed": torch.zeros(1, 9, 64)}), "8 patches a frame, no square"),
        (lambda s: s.update({"video_model.norm.weight": torch.full((64,), torch.nan)}), "not numbers"),
        (lambda s: s.update({"video_model.mask_token": torch.zeros(1, 1, 64)}), "video_model.mask_token"),
        (lambda s: s.update({"text_proj.1.weight": torch.zeros(8, 64)}), "is a checkpoint of MCQ or MILES"),
        (lambda s: [s.clear(), s.update({"object_model.cls_token": torch.zeros(1)})], "is a DemoVLP checkpoint"),
        (lambda s: [s.clear(), s.update({"patch_embed.proj.weight": torch.zeros(1)})], "is a ViT"),
    ],
)
def test_files_that_do_not_fit(
    change: Callable[[OrderedDict[str, Tensor]], object],
    message: str,
    tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    state = public_state(tokenizer)
    change(state)
    path, out = save(tmp_path / "public.pth.tar", state, monkeypatch), tmp_path / "model"
    assert convert(path, tokenizer, out) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_other_sizes_and_what_was_unpacked(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "p.pth.tar", public_state(tokenizer, patch_size=16, image_size=48), monkeypatch)
    assert read_public_frozen(path).model.video.size == (48, 48)
    odd = save(tmp_path / "odd.pth.tar", public_state(tokenizer, width=48), monkeypatch)
    assert convert(odd, tokenizer, tmp_path / "model") == 2
    assert "how many attention heads" in capsys.readouterr().err
    with tarfile.open(tmp_path / "real.tar", "w") as archive:
        archive.add(path, "inside.pth")
    assert convert(tmp_path / "real.tar", tokenizer, tmp_path / "model") == 2
    assert capsys.readouterr().err.count("\n") == 1
