"""What a detector's identity, as manifests and checkpoints carry it, says of its boxes.

In: an identity. Out: whether its boxes count their last pixel, and boxes as edges. Identities of before version 0.2 do
not say ``plus_one``; it is then what their family does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLUS_ONE = "plus_one"
_BY_FAMILY = {"caffe": True, "maxnms": False, "d2": False}
# Features that others made and this project imported: all with bottom-up-attention's own detector, or one like it.
_BY_NAME = {"public-npz": True, "bottom-up-attention-table": True}


def counts_last_pixel(detector: Mapping[str, Any]) -> bool:
    """Whether a box of this detector from ``x1`` to ``x2`` is ``x2 - x1 + 1`` wide: its corners are pixels, not edges.

    Detectors of no known family have edges unless they say otherwise.
    """
    stated = completed(detector).get(PLUS_ONE, False)
    return stated is True


def completed(detector: Mapping[str, Any]) -> dict[str, Any]:
    """An identity with ``plus_one`` filled in where it is known, so that old and new ones compare."""
    known = _BY_FAMILY.get(str(detector.get("family")), _BY_NAME.get(str(detector.get("name"))))
    return {**({} if known is None else {PLUS_ONE: known}), **detector}


def box_edges(boxes: NDArray[np.floating], last_pixel: bool) -> NDArray[np.floating]:
    """Boxes [..., 4] ``x1 y1 x2 y2`` of a detector as edges: a box from 3 to 5 is then two pixels wide.

    Args:
        boxes: as stored.
        last_pixel: see :func:`counts_last_pixel`.
    """
    return boxes + np.array([0, 0, last_pixel, last_pixel], boxes.dtype)
