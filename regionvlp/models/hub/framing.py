"""Where a box of a frame lies on the picture that a model sees: squashed, cropped, or padded.

Shape letter: n boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Framing:
    """How a frame becomes the input of a model.

    Attributes:
        height, width: of the input in pixels.
        mode: ``squash`` ignores the frame's proportions, ``shortest`` makes its shorter side ``resized`` pixels and
            crops the centre, ``longest`` makes the longer side fit and pads.
        resized: pixels of the shorter side before the crop; of no matter otherwise.
    """

    height: int
    width: int
    mode: Literal["squash", "shortest", "longest"]
    resized: int = 0

    def place(self, boxes: Boxes, size: tuple[int, int]) -> tuple[Boxes, NDArray[np.bool_]]:
        """Boxes on the input, as far as it shows them.

        Args:
            boxes: [n, 4] ``x1 y1 x2 y2`` in pixels of the frame. size: (height, width) of the frame.

        Returns:
            [n, 4] float32 in pixels of the input, inside it; and [n] bool, whether any of the box is seen.
        """
        height, width = size
        if self.mode == "squash":
            scale = (self.width / width, self.height / height)
        elif self.mode == "shortest":
            scale = (self.resized / min(size),) * 2
        else:
            scale = (min(self.width / width, self.height / height),) * 2
        shift = ((self.width - width * scale[0]) / 2, (self.height - height * scale[1]) / 2)
        placed = boxes.reshape(-1, 4) * np.array([*scale, *scale], np.float32) + np.array([*shift, *shift], np.float32)
        inside = np.clip(placed, 0, np.array([self.width, self.height] * 2, np.float32)).astype(np.float32)
        seen = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
        return inside, seen
