"""From decoded frames to the network's input.

Shape letters: B frames of one size, H, W their size, h, w the resized size.
In: [B, H, W, 3] uint8, red-green-blue, as decoders give it. Out: [B, 3, h, w] float32, blue-green-red, mean subtracted.

The frames stay channels-last throughout, so the result is a channels-last tensor without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from regionvlp.extract.detector.config import InputConfig


@dataclass(frozen=True)
class Resize:
    """How one frame size becomes the network's input size.

    Attributes:
        height, width: the original size H, W; new_height, new_width: the resized size h, w.
        scale_y, scale_x: resized pixels per original pixel; what takes boxes back.
    """

    height: int
    width: int
    new_height: int
    new_width: int
    scale_y: float
    scale_x: float


def plan_resize(height: int, width: int, config: InputConfig) -> Resize:
    """The resize of a frame of ``height`` x ``width``; a very thin frame may be left with no pixels at all.

    ``opencv_float`` uses one scale for both axes and rounds half to even (py-faster-rcnn's and MILVLG's loaders over
    ``cv2.resize``); the others round half up and have a scale of their own on each axis (detectron2).
    """
    short, long = min(height, width), max(height, width)
    scale = config.short_side / short
    if config.resample == "opencv_float":
        if round(scale * long) > config.long_side:
            scale = config.long_side / long
        return Resize(height, width, round(height * scale), round(width * scale), scale, scale)
    new_short, new_long = float(config.short_side), scale * long
    if new_long > config.long_side:
        shrink = config.long_side / new_long
        new_short, new_long = new_short * shrink, new_long * shrink
    new_height, new_width = (new_short, new_long) if height < width else (new_long, new_short)
    new_height, new_width = int(new_height + 0.5), int(new_width + 0.5)
    return Resize(height, width, new_height, new_width, new_height / height, new_width / width)


def preprocess(frames: Tensor, resize: Resize, config: InputConfig) -> Tensor:
    """Frames [B, H, W, 3] uint8 RGB as the network's input [B, 3, h, w] float32 BGR, on the frames' device."""
    resample = {"opencv_float": _resize_opencv, "pillow_uint8": _resize_pillow, "torch_float": _resize_torch}
    mean = torch.tensor(config.mean_bgr, dtype=torch.float32, device=frames.device)
    shape = (len(frames), resize.new_height, resize.new_width, 3)
    images = torch.empty(shape, dtype=torch.float32, device=frames.device)
    # Frame by frame: what lies between is several times larger than a processor's cache even so.
    for frame, image in zip(frames, images, strict=True):
        # The mean is subtracted last although the public code does it first: bilinear weights sum to one.
        torch.sub(resample[config.resample](frame, resize).flip(-1), mean, out=image)
    return images.permute(0, 3, 1, 2)


def _resize_opencv(frame: Tensor, resize: Resize) -> Tensor:
    """OpenCV's INTER_LINEAR: source coordinate (i + 0.5) / scale - 0.5, clamped at the edges, never antialiased.

    The scale is the exact one, not the ratio of the rounded sizes: at 1280x720 the ratio would move the bottom rows by
    more than half a pixel. Hence explicit taps instead of ``interpolate``.
    """
    above, below, weight = _taps(resize.new_height, resize.height, resize.scale_y, frame.device)
    upper, lower = frame.index_select(0, above).float(), frame.index_select(0, below).float()
    rows = torch.lerp(upper, lower, weight[:, None, None])
    left, right, weight = _taps(resize.new_width, resize.width, resize.scale_x, frame.device)
    return torch.lerp(rows.index_select(1, left), rows.index_select(1, right), weight[:, None])


@lru_cache(maxsize=64)
def _taps(new_size: int, size: int, scale: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each new pixel the two source pixels and the weight of the second, rounded where OpenCV rounds.

    Kept for the next frames: most have the same size, and on a GPU each call would be three copies.
    """
    source = ((np.arange(new_size) + 0.5) * (1.0 / scale) - 0.5).astype(np.float32)
    first = np.floor(source).astype(np.int64)
    weight = source - first.astype(np.float32)
    weight[(first < 0) | (first >= size - 1)] = 0
    first = first.clip(0, size - 1)
    second = (first + 1).clip(max=size - 1)
    return (
        torch.from_numpy(first).to(device),
        torch.from_numpy(second).to(device),
        torch.from_numpy(weight).to(device),
    )


def _resize_pillow(frame: Tensor, resize: Resize) -> Tensor:
    picture = Image.fromarray(frame.cpu().numpy())
    resized = picture.resize((resize.new_width, resize.new_height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).to(frame.device).float()


def _resize_torch(frame: Tensor, resize: Resize) -> Tensor:
    planes, size = frame.permute(2, 0, 1)[None].float(), (resize.new_height, resize.new_width)
    return functional.interpolate(planes, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
