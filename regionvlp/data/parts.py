"""Which clips of a source count: a share that is held out for evaluation, and a share that is trained on.

In: captions joined with shards. Out: those of some clips. A choice depends on the ids alone, so that it is the same in
every run, and a smaller subset lies within a larger one (the nested subsets of DemoVLP's figure 4).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import xxhash
from numpy.typing import NDArray

from regionvlp.data.caption_table import Captions
from regionvlp.errors import InputError

_HELD_OUT, _SUBSET = 1, 2  # seeds of unlike orders: what is trained on is no function of what is held out


def held_out(captions: Captions, share: float) -> Captions:
    """The captions of the clips that a share of the source keeps from training.

    Raises:
        InputError: so small a share is none of the clips, or so large a one leaves none to train on.
    """
    count = round(share * len(captions.video_ids))
    if not 0 < count < len(captions.video_ids):
        raise InputError(
            f"held_out {share:g} of {len(captions.video_ids)} clips is {'all' if count else 'none'} of them",
            "choose a share that leaves clips on both sides",
        )
    return _of_first(captions, count, _HELD_OUT)


def without(captions: Captions, ids: Collection[str]) -> Captions:
    """The captions of all clips but some.

    Raises:
        InputError: nothing is left.
    """
    if not ids:
        return captions
    kept = np.array([name not in ids for name in captions.video_ids.to_pylist()], np.bool_)
    if not kept.any():
        raise InputError("all clips of a source are held out from it", "hold out fewer (held_out of the other source)")
    return captions if kept.all() else captions.take(np.flatnonzero(kept[captions.video_index]))


def subset(captions: Captions, share: float) -> Captions:
    """The captions of a share of the clips, at least of one."""
    return _of_first(captions, max(1, round(share * len(captions.video_ids))), _SUBSET)


def _of_first(captions: Captions, count: int, seed: int) -> Captions:
    """The captions of the ``count`` first clips in the order of their ids' hashes."""
    ids = captions.video_ids.to_pylist()
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(name.encode(), seed) for name in ids), np.uint64, len(ids))
    chosen: NDArray[np.bool_] = np.zeros(len(ids), np.bool_)
    chosen[np.argsort(hashes, kind="stable")[:count]] = True
    return captions.take(np.flatnonzero(chosen[captions.video_index]))
