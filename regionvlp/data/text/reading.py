"""Captions as a model reads them, a batch at a time.

Shape letters: B captions, L tokens. In: texts. Out: ``input_ids`` [B, L] int64, ``attention_mask`` [B, L] bool (True =
a token) and, where words are weighed, ``word_weight`` [B, L - 1] float32 of the tokens after ``[CLS]``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from regionvlp.data.text.content_words import ContentWords, WordWeights
from regionvlp.data.text.tokenizer import TextTokenizer


class TextReader:
    """Makes batches of captions; can be handed to a loader's workers.

    Args:
        tokenizer: for the captions.
        max_length: at most so many tokens per text.
        pad_to: L; by default the longest text of a batch decides.
        select: leaves nothing but the nouns and verbs of a caption; None for whole captions.
        weights: of the words; without, a batch has no ``word_weight``.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        max_length: int,
        pad_to: int | None = None,
        select: ContentWords | None = None,
        weights: WordWeights | None = None,
    ) -> None:
        self.tokenizer, self.max_length, self.pad_to = tokenizer, max_length, pad_to
        self.select, self.weights = select, weights

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        read = [self.select.select(caption) for caption in captions] if self.select else captions
        batch = self.tokenizer.encode(read, self.max_length, self.pad_to)
        if self.weights is not None:
            width = batch["input_ids"].shape[1]
            batch["word_weight"] = self.weights(read, self.tokenizer, self.max_length, width)
        return batch
