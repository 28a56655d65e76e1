"""A checksum a frame: computed once while a shard is written, and again by whoever reads the frame.

That of a frame is XXH3 (64 bits) of all that is stored of it, in two steps: its features, and then, with the result as
the seed, the values of its small columns one after the other in the order of :attr:`.ShardSpec.small_columns`. They lie
in the receipt (see :mod:`regionvlp.shards.places`) and not beside the data, so that a file which took another's place
is noticed as surely as a flipped bit.

Shape letters: F frames of one video, K bytes of small columns a frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from regionvlp.shards.schema import ShardSpec

xxh3 = xxh3_64_intdigest  # of a buffer and a seed


def frame_checksums(columns: Mapping[str, NDArray[Any]], spec: ShardSpec) -> NDArray[np.uint64]:
    """[F] uint64 of the stored columns of one video, each [F, ...] and C-contiguous."""
    count = len(columns["features"])
    records = np.concatenate(
        [columns[column.name].reshape(count, -1).view(np.uint8) for column in spec.small_columns], axis=1
    )
    features = columns["features"]
    sums = [xxh3(record.data, xxh3(frame.data)) for frame, record in zip(features, records, strict=True)]
    return np.array(sums, np.uint64)
