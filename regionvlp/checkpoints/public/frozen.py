"""Checkpoints of the public Frozen in Time code as checkpoint folders of this project.

In: a file such as ``cc-webvid2m-4f_stformer_b_16_224.pth.tar``, which is a zip of torch's and no tar, with an object of
the training script's own class inside (spec section 2); it stays inert. Out: a folder that ``load_checkpoint`` opens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from regionvlp.checkpoints.public.reading import TOKENIZERS, PublicState, tokenizer_of
from regionvlp.config import dump_yaml, validate
from regionvlp.data.settings import PixelDataSettings
from regionvlp.errors import WeightsError
from regionvlp.losses.settings import GlobalLossSettings
from regionvlp.models.inflation import inflate_frames
from regionvlp.models.settings import Inflation, PixelDualEncoderSettings
from regionvlp.store.files import sha256_of
from regionvlp.store.folders import check_new, new_folder
from regionvlp.systems.registry import build_system
from regionvlp.training.config import FrozenConfig, TokenizerSettings
from regionvlp.training.identity import save_beside_weights
from regionvlp.weights.kinds import FROZEN
from regionvlp.weights.modules import save_weights

# How the public state dict names its parts, and how the system does. A projection's ReLU is its number 0.
OURS = {
    "video_model.": "model.video.",
    "vid_proj.0.": "model.video.proj.",
    "text_model.": "model.text.model.",
    "txt_proj.1.": "model.text.projection.",
}
TEMPORAL = "model.video.temporal_embed"


@dataclass(frozen=True)
class PublicFrozen:
    """What a public file holds.

    Attributes:
        state: the file, its parameters by our names. model: the sizes that their shapes show.
    """

    state: PublicState
    model: PixelDualEncoderSettings

    def with_frames(self, frames: int, inflation: Inflation) -> tuple[dict[str, Tensor], PixelDualEncoderSettings]:
        """Weights and sizes of the same model for another number of frames."""
        rows = inflate_frames(self.state.weights[TEMPORAL], frames, inflation)
        video = self.model.video.model_copy(update={"frames": frames})
        return {**self.state.weights, TEMPORAL: rows}, self.model.model_copy(update={"video": video})


def read_public_frozen(path: Path, *, heads: int | None = None) -> PublicFrozen:
    """Reads a file of the public Frozen trainer; nothing in it is executed.

    Args:
        path: the file. heads: attention heads of both encoders, for other sizes than heads of 64.

    Raises:
        InputError: there is no such file. WeightsError: it is damaged, of another architecture, not of square pictures
            (whose size the file does not say), or holds numbers that are not finite.
    """
    state = PublicState.read(path, FROZEN, OURS)
    video = "model.video."
    width, _, patch_size, _ = state.shape(f"{video}patch_embed.proj.weight", 4)
    patches = state.shape(f"{video}pos_embed", 3)[1] - 1
    side = math.isqrt(patches)
    if side * side != patches or not side:
        raise WeightsError(f"{path} has {patches} patches a frame, no square", "only models of square frames are known")
    values = {
        "video": {
            "image_size": side * patch_size,
            "patch_size": patch_size,
            "width": width,
            "depth": state.layers(f"{video}blocks."),
            "heads": state.heads(width, heads),
            "mlp_ratio": state.shape(f"{video}blocks.0.mlp.fc1.weight", 2)[0] / width,
            "frames": state.shape(TEMPORAL, 3)[1],
            "time_init": "zeros",
            "joint_width": state.shape(f"{video}proj.weight", 2)[0],
        },
        "text": state.text_sizes(heads),
    }
    return PublicFrozen(state, validate(PixelDualEncoderSettings, values, str(path)))


def convert_frozen(
    source: Path,
    out: Path,
    *,
    tokenizer: str | None = None,
    frames: int | None = None,
    inflation: Inflation = "zeros",
    heads: int | None = None,
) -> dict[str, Any]:
    """Makes the checkpoint folder ``out`` from a public Frozen file.

    Args:
        source: the file.
        out: the folder to make.
        tokenizer: folder or Hugging Face name; by default BERT's uncased one, from the hub or its cache.
        frames: F that the model shall read, by default those it was trained for.
        inflation: where the rows of more frames come from, see :func:`inflate_frames`.
        heads: see :func:`read_public_frozen`.

    Returns:
        What was found and made; JSON-able.

    Raises:
        InputError, WeightsError: the file, the tokenizer or the folder cannot be used; nothing is written then.
    """
    check_new(out)
    found = read_public_frozen(source, heads=heads)
    trained = found.model.video.frames
    weights, model = found.with_frames(frames or trained, inflation)
    words = tokenizer_of(tokenizer, model.text.vocab_size or 0)
    config = _public_config(source, model)
    system = build_system(config.task, config.model, config.loss, vocab_size=words.vocab_size, pretrained=False)
    found.state.check(weights, system.state_dict())
    system.load_state_dict(weights)
    with new_folder(out) as folder:
        save_weights(system, folder)
        (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")
        save_beside_weights(folder, words, {})
    return {
        "checkpoint": str(out),
        "file": str(source),
        "file_sha256": sha256_of(source),
        "epoch": found.state.epoch,
        "parameters": sum(parameter.numel() for parameter in system.parameters()),
        "frames": {"file": trained, "checkpoint": model.video.frames},
        "image_size": model.video.image_size,
        "patch_size": model.video.patch_size,
        "joint_width": model.video.joint_width,
    }


def _public_config(source: Path, model: PixelDualEncoderSettings) -> FrozenConfig:
    """What evaluation reads: as the public code tests, but with exact frames and no text cut that a caption reaches."""
    clips = {"frames": model.video.frames, "image_size": model.video.image_size, "antialias": False}
    data = validate(PixelDataSettings, {"clips": clips, "text_length": model.text.max_length}, str(source))
    named = TokenizerSettings(name=TOKENIZERS[0])
    return FrozenConfig(tokenizer=named, data=data, model=model, loss=GlobalLossSettings())
