"""What a model of pictures and sentences offers, whatever library it comes through.

Shape letters: B pictures, Q sentences, D width of the joint space, n boxes.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from regionvlp.models.hub.framing import Framing
from regionvlp.models.hub.tokens import Tap, TokenPath, box_vectors

Floats = NDArray[np.float32]
_NARROWEST = 16  # a longer side of so many shorter ones is cropped before it is made larger


@dataclass(frozen=True)
class Seen:
    """B pictures as a model sees them.

    Attributes:
        pooled: [B, D] float32, of length 1.
        maps: [B, M, h, w], what boxes are pooled from (see ``tokens``); None where the tower has no such path.
    """

    pooled: Tensor
    maps: Tensor | None


class JointModel(ABC):
    """A model of pictures and sentences.

    Attributes:
        width: D. longest: tokens of a sentence, those that begin and end it included.
        framing: how a frame becomes its input. path: how boxes get vectors; None where they get none.
        device: where it runs. dtype: what the picture tower computes in.
    """

    width: int
    longest: int
    framing: Framing
    path: TokenPath | None
    device: torch.device
    dtype: torch.dtype = torch.float32

    def __init__(self) -> None:
        # Towers are asked by several threads of a server; the tap would mix up their states.
        self._lock = threading.Lock()

    def prepare(self, frame: NDArray[np.uint8]) -> Tensor:
        """[3, H, W] float32: a [h, w, 3] RGB frame as the model's own preprocessing makes it, to rounding."""
        if self.framing.mode == "shortest":
            frame = _central(frame)
        return self._prepared(Image.fromarray(frame))

    def see(self, pixels: Tensor, boxes: bool = True) -> Seen:
        """Encodes [B, 3, H, W] prepared pictures.

        Args:
            boxes: keep what boxes are pooled from.
        """
        path = self.path if boxes else None
        with torch.inference_mode(), self._lock, Tap(path.tap if path else None) as tap, self._precision():
            pooled = self._pictures(pixels.to(self.device))
            maps = path.maps(tap.states) if path is not None and tap.states is not None else None
        return Seen(functional.normalize(pooled.float(), dim=-1), maps)

    def box_vectors(self, seen: Seen, boxes: Sequence[Floats]) -> Floats:
        """Vectors of boxes, of length 1, [sum of n, D]; ``boxes``: [n, 4] of each picture, in pixels of the input."""
        assert self.path is not None
        assert seen.maps is not None
        side = (self.framing.height, self.framing.width)
        with torch.inference_mode():
            found = box_vectors(self.path, seen.maps, [torch.from_numpy(part) for part in boxes], side)
        vectors: Floats = found.cpu().numpy()
        return vectors

    def read(self, texts: Sequence[str]) -> Floats:
        """[Q, D] float32 of length 1: sentences, of which only the first ``longest`` tokens are read."""
        with torch.inference_mode():
            found = functional.normalize(self._sentences(list(texts)).float(), dim=-1)
        vectors: Floats = found.cpu().numpy()
        return vectors

    @abstractmethod
    def tokens_of(self, text: str) -> int:
        """How many tokens a sentence has, those that begin and end it included, before anything is cut off."""

    @abstractmethod
    def _prepared(self, picture: Image.Image) -> Tensor: ...

    @abstractmethod
    def _pictures(self, pixels: Tensor) -> Tensor: ...

    @abstractmethod
    def _sentences(self, texts: list[str]) -> Tensor: ...

    def _precision(self) -> AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def _central(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of a frame that is hardly more than a line: its crop shows a small part of it only."""
    for axis in (0, 1):
        most = _NARROWEST * frame.shape[1 - axis]
        if frame.shape[axis] > most:
            first = (frame.shape[axis] - most) // 2
            frame = frame.take(range(first, first + most), axis)
    return frame
