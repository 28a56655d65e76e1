"""Weights from a seed: the same bits on every machine, and a network that behaves like a detector without training.

For the bundled ``toy`` until it is trained, for benchmarks at full size, for tests. Free of torch.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from regionvlp.extract.detector import layout
from regionvlp.extract.detector.config import DetectorConfig

# Grey levels have a standard deviation of about 64; the stem's norm divides by it (and by the stem's own gain).
_STEM_VARIANCE = 2.0 * 64.0**2
# What each kind of layer is scaled by, against a unit gain. Convolutions follow a ReLU, whose output varies with 0.34
# of its input's variance; the output layers are set so that a detector's decisions are spread out.
_CONVOLUTION = 1.7
_GAINS = {
    "objectness_logits": 2.0,
    "anchor_deltas": 0.15,
    "cls_score": 8.0,
    "bbox_pred": 0.5,
    "attribute_head.hidden": 2.0,
    "attribute_head.score": 3.0,
}


def random_state(config: DetectorConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """A canonical state dict (without anchors) drawn from ``seed``, each parameter from a stream of its own.

    Only PCG64's raw integers, exact integer sums and single IEEE operations are used, so the bits depend neither on
    numpy's version nor on the processor, and shards of two machines carry the same weights hash.
    """
    shapes = layout.parameter_shapes(config)
    return {name: _draw(name, shape, seed) for name, shape in shapes.items() if name != layout.ANCHORS}


def _draw(name: str, shape: layout.Shape, seed: int) -> NDArray[np.float32]:
    if name.endswith("running_mean"):
        return np.zeros(shape, np.float32)
    if name.endswith("running_var"):
        return np.full(shape, _STEM_VARIANCE if ".stem." in name else 1.0, np.float32)
    # 24 bits a value: integers whose products and sums stay exact.
    stream = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    value = (stream.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.int64).reshape(shape) - 2**23
    unit = 2.0**-23
    if name.endswith("norm.weight"):
        size = 0.5 if ".conv3." in name else 1.0
        return (size + (0.2 * size * unit) * value).astype(np.float32)
    if name.endswith(".bias"):
        return (0.1 * unit * value).astype(np.float32)
    if name.endswith("embedding.weight"):
        return (unit * value).astype(np.float32)
    fan_in = math.prod(shape[1:])
    if ".stem." not in name:
        # Filters without a mean: what enters is never negative, and its mean would drown what tells places apart.
        rows = value.reshape(shape[0], fan_in)
        value = (rows * fan_in - rows.sum(axis=1, keepdims=True)).reshape(shape)
        unit /= fan_in
    gain = next((gain for part, gain in _GAINS.items() if part in name), _CONVOLUTION)
    return (gain * math.sqrt(3.0 / fan_in) * unit * value).astype(np.float32)
