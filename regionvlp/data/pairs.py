"""Clips with their captions: the samples of training, read a batch at a time, and what an evaluation is made of.

In: captions whose ids are those of the clips. Out: batches of tensors by name.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from regionvlp.data.captions import Caption, Captions
from regionvlp.data.clips.base import Clips
from regionvlp.data.clips.frame_choice import CAPTION, FrameChoice
from regionvlp.data.draws import Draws
from regionvlp.data.text.reading import TextReader
from regionvlp.errors import InputError

# What tells the pairs of a batch apart, [B] int64 each: the number of the clip among those of its source, and a hash of
# the tokens of the caption, which is the same for captions that read the same, on every process.
PAIR_KEYS = ("clip_number", "text_hash")


class Pairs:
    """Clips with captions. A sample is a pure function of (seed, epoch, number).

    Args:
        captions: with the ids of the clips, each of which has one at least.
        clips: the videos, in the order in which the captions first name them.
        choice: which frames of a clip.
        texts: reads captions; evaluations that encode texts apart need none.
        per_video: one sample per clip with one of its captions at random, instead of one per caption.
        seed: of the draws.
        identity: what tells these pairs from others wherever they lie: JSON values.
        annotated: clips that the annotations name, where they may be more than ``clips``.

    Attributes:
        video_of: [captions] int64, the number of each caption's clip.
    """

    def __init__(
        self,
        captions: Captions | Sequence[Caption],
        clips: Clips,
        choice: FrameChoice,
        texts: TextReader | None = None,
        *,
        per_video: bool = False,
        seed: int = 0,
        identity: Mapping[str, Any] | None = None,
        annotated: int | None = None,
    ) -> None:
        if not captions:
            raise InputError("there are no captions to read", "check the annotations and their split")
        self.captions, self.clips, self.choice, self.texts = Captions.of(captions), clips, choice, texts
        self.per_video, self.seed, self.identity = per_video, seed, identity or {}
        self.annotated = len(clips.ids) if annotated is None else annotated
        self.video_of = self.captions.video_index.astype(np.int64)
        # The captions of clip i are by_video[starts[i] : starts[i + 1]].
        self._by_video = np.argsort(self.video_of, kind="stable")
        self._starts = np.searchsorted(self.video_of[self._by_video], np.arange(len(clips.ids) + 1))

    def with_texts(self, texts: TextReader) -> Pairs:
        """The same samples, captions read by ``texts``."""
        found = copy.copy(self)
        found.texts = texts
        return found

    def __len__(self) -> int:
        return len(self.clips.ids) if self.per_video else len(self.captions)

    def read(self, samples: ArrayLike, epoch: int) -> dict[str, Any]:
        """The batch of B samples: what the clips and the texts give, ``video_id``, ``caption`` and :data:`PAIR_KEYS`.

        Raises:
            UnreadableItemsError: some cannot be read. IndexError: there are not so many samples.
        """
        return self.with_captions(self.read_clips(samples, epoch))

    def read_clips(self, samples: ArrayLike, epoch: int) -> dict[str, Any]:
        """The batch of B samples as :meth:`read` gives it, its captions not read yet.

        Raises:
            UnreadableItemsError: some cannot be read. IndexError: there are not so many samples.
        """
        numbers_B = np.asarray(samples, np.int64)
        if ((numbers_B < 0) | (numbers_B >= len(self))).any():
            raise IndexError(f"samples {numbers_B.min()} to {numbers_B.max()} of {len(self)}")
        draws = Draws((self.seed, epoch), numbers_B)
        captions_B = self._captions_of(numbers_B, draws)
        videos_B = self.video_of[captions_B]
        return {
            **self.clips.read_batch(videos_B, self.choice, draws),
            "clip_number": torch.from_numpy(videos_B),
            "video_id": [self.clips.ids[at] for at in videos_B],
            "caption": self.captions.texts.take(pa.array(captions_B)).to_pylist(),
        }

    def with_captions(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of :meth:`read_clips`, with what reading its captions gives."""
        assert self.texts is not None, "training reads texts"
        read = self.texts(batch["caption"])
        return {**batch, **read, "text_hash": text_hash(read)}

    def _captions_of(self, numbers_B: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """[B] the caption of each sample."""
        if not self.per_video:
            return numbers_B
        first_B, past_B = self._starts[numbers_B], self._starts[numbers_B + 1]
        drawn_B: NDArray[np.int64] = self._by_video[draws.integers(CAPTION, first_B[:, None], past_B[:, None])[:, 0]]
        return drawn_B


def text_hash(texts: Mapping[str, Tensor]) -> Tensor:
    """[B] int64, equal where captions have the same tokens, however they are written and padded.

    Args:
        texts: ``input_ids`` [B, L] int64 and ``attention_mask`` [B, L] bool.
    """
    ids_BL = texts["input_ids"].numpy().astype(np.uint64) * texts["attention_mask"].numpy()
    # A sum of 64-bit products, each place with a multiplier of its own, wraps round; unlike captions agree by chance
    # about once in 2**49 pairs.
    places = np.random.PCG64(0).random_raw(ids_BL.shape[1]) | np.uint64(1)
    return torch.from_numpy((ids_BL * places).sum(1).astype(np.int64))
