"""From a name to a model of pictures and sentences."""

from __future__ import annotations

import time

import torch

from regionvlp.models.hub.base import JointModel
from regionvlp.models.hub.files import ModelFiles, find_model

_TRIES = 2  # timed forwards of each kind; the first of all is not counted


def open_joint_model(name_or_folder: str, device: str = "cpu") -> tuple[JointModel, ModelFiles]:
    """Opens a model.

    Args:
        name_or_folder: see :func:`~regionvlp.models.hub.files.find_model`.
        device: where it shall run.

    Raises:
        InputError: there is none, or one of another kind. WeightsError: it cannot be fetched or read.
    """
    files = find_model(name_or_folder)
    if files.layout == "open_clip":
        from regionvlp.models.hub.open_clip_model import OpenClipModel

        return OpenClipModel(files, torch.device(device)), files
    from regionvlp.models.hub.transformers_model import TransformersModel

    return TransformersModel(files, torch.device(device)), files


def choose_precision(model: JointModel) -> torch.dtype:
    """Lets pictures be computed in bfloat16 where this machine does it in hardware and it is faster here.

    A processor without it would compute in bfloat16 at a third of the speed, so it is timed where it may pay.

    Returns:
        What was chosen; the model is set to it.
    """
    model.dtype = torch.float32
    if _has_bfloat16(model.device):
        pixels = torch.zeros(4, 3, model.framing.height, model.framing.width)
        took = {dtype: _timed(model, pixels, dtype) for dtype in (torch.float32, torch.bfloat16)}
        model.dtype = min(took, key=lambda dtype: took[dtype])
    return model.dtype


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    cpu = torch.cpu
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(getattr(cpu, name)() for name in checks if hasattr(cpu, name))


def _timed(model: JointModel, pixels: torch.Tensor, dtype: torch.dtype) -> float:
    """Seconds of the fastest forward."""
    model.dtype = dtype
    took = []
    for _ in range(_TRIES + 1):
        start = time.perf_counter()
        model.see(pixels, boxes=False).pooled.cpu()
        took.append(time.perf_counter() - start)
    return min(took[1:])
