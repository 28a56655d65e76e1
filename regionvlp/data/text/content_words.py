"""Nouns and verbs of captions: what TACo's token term weighs, and all that the select-token ablation leaves.

In: captions as text. Out: where their nouns and verbs stand, a caption of nothing else, or a weight per token (rarer
words weigh more). Which words are nouns and verbs is for a tagger to say: nltk's, an optional extra whose model is
fetched once by nltk's own downloader.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError

Tagger = Callable[[list[str]], list[tuple[str, str]]]
"""Words of a sentence to (word, Penn Treebank tag): ``NN`` and ``VB`` begin the tags of nouns and verbs."""

Span = tuple[int, int]

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
_CONTENT = ("NN", "VB")
_MODEL = "averaged_perceptron_tagger_eng"
_REMEMBERED = 1 << 16  # captions whose tags are kept, since training meets them again


def nltk_tagger() -> Tagger:
    """nltk's averaged perceptron, for English.

    Raises:
        InputError: nltk or its model is not here; the hint says how to get it.
    """
    try:
        import nltk
    except ImportError:
        hint = f"pip install 'regionvlp[tagger]', then python -m nltk.downloader {_MODEL}"
        raise InputError("finding nouns and verbs needs nltk, which is not installed", hint) from None
    try:
        nltk.pos_tag(["word"])
    except LookupError:
        hint = f"python -m nltk.downloader {_MODEL} (offline: copy its folder into one that NLTK_DATA names)"
        raise InputError("finding nouns and verbs needs nltk's tagger model, which is not here", hint) from None
    tag: Tagger = nltk.pos_tag
    return tag


class ContentWords:
    """Finds nouns and verbs; can be handed to a loader's workers.

    Args:
        tagger: by default nltk's.

    Raises:
        InputError: see :func:`nltk_tagger`.
    """

    def __init__(self, tagger: Tagger | None = None) -> None:
        self._tagger = tagger or nltk_tagger()
        self._forget()

    def __call__(self, caption: str) -> list[Span]:
        """Characters (start, end) of each noun and verb, in their order."""
        return self._spans(caption)

    def select(self, caption: str) -> str:
        """The caption's nouns and verbs alone; the whole caption where it has none (DemoVLP, table 6)."""
        return " ".join(caption[start:end] for start, end in self(caption)) or caption

    def _find(self, caption: str) -> list[Span]:
        found = list(_WORD.finditer(caption))
        tags = self._tagger([match.group() for match in found])
        return [
            match.span()
            for match, (_, tag) in zip(found, tags, strict=True)
            if tag.startswith(_CONTENT) and match.group()[0].isalnum()
        ]

    def _forget(self) -> None:
        self._spans = lru_cache(_REMEMBERED)(self._find)

    def __getstate__(self) -> dict[str, object]:
        return {"_tagger": self._tagger}

    def __setstate__(self, state: dict[str, Tagger]) -> None:
        self._tagger = state["_tagger"]
        self._forget()


class WordWeights:
    """TACo's weight of every token: the inverse document frequency of its word if that is a noun or verb, else 0.

    ``log(N / n)`` for a word that n of the N ``captions`` hold, ``log(N)`` for one that none of them does. The pieces
    that WordPiece breaks a word into share its weight, so that long words do not count for more.
    """

    def __init__(self, captions: Iterable[str], content: ContentWords) -> None:
        self._content = content
        self._counts: Counter[str] = Counter()
        self._captions = 0
        for caption in captions:
            self._counts.update({match.group().lower() for match in _WORD.finditer(caption)})
            self._captions += 1

    def of_word(self, word: str) -> float:
        """The inverse document frequency of a word."""
        return math.log(max(self._captions, 1) / max(self._counts[word.lower()], 1))

    def __call__(self, captions: Sequence[str], tokenizer: TextTokenizer, max_length: int, width: int) -> Tensor:
        """[B, W] float32 for B captions: one weight per token after ``[CLS]``.

        Args:
            captions: B texts, as the batch holds them.
            tokenizer, max_length: as the batch was encoded.
            width: L of the batch; W = L - 1.
        """
        weights = torch.zeros(len(captions), width)
        for row, caption in enumerate(captions):
            spans = tokenizer.words(caption, max_length)
            for start, end in self._content(caption):
                pieces = [i for i, span in enumerate(spans) if span and span[0] < end and span[1] > start]
                if pieces:
                    weights[row, pieces] = self.of_word(caption[start:end]) / len(pieces)
        return weights[:, 1:]
