"""What an index asks of an encoder, and what the two sides of it look like.

Shape letters: B clips, Q queries, D width of the pooled vectors, N tokens of a clip, T width of its tokens, n regions
of a clip's evidence, W words of a query.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from regionvlp.search.clips import ClipInput, Evidence

Floats = NDArray[np.float32]

# Words that point at nothing. A query of nothing else keeps them all.
_POINTLESS_WORDS = """
a an the and or but of in on at to into onto from with by for as is are was were be been being am it its this that
these those there here he she they them his her their we you i my your our who which what where when how why not no
do does did has have had can could will would while then than so up down out off over under near next some any all
both each other another very just also too if about around through between during before after again video clip
scene shot footage showing shows show something someone
"""
_POINTLESS = frozenset(_POINTLESS_WORDS.split())
_WORD = re.compile("\\w+(?:['\u2019-]\\w+)*")


@dataclass(frozen=True)
class EncodedClips:
    """B clips in an encoder's space.

    Attributes:
        pooled: [B, D] float32 of length 1; None where the encoder compares words alone.
        tokens: [B, N, T] float32, one vector for each region slot, frame by frame; None where there are none.
        mask: [B, N] bool, True where a token is real.
        frames: [B, N] int16, in which frame of the clip a token's region lies; slots: [B, N] int16, in which slot.
    """

    pooled: Floats | None
    tokens: Floats | None = None
    mask: NDArray[np.bool_] | None = None
    frames: NDArray[np.int16] | None = None
    slots: NDArray[np.int16] | None = None


@dataclass(frozen=True)
class Query:
    """One query in an encoder's space.

    Attributes:
        text: as asked; empty where it is a picture or clip that is asked for.
        pooled: [D] float32 of length 1; None for encoders of words alone.
        words: the words of ``text`` that may point at something, in order, each once.
        about: what the encoder needs later (tokens of the query, vectors of its words); nobody else's business.
        notes: what there is to say about it to who asked, a line each.
    """

    text: str
    pooled: Floats | None
    words: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class StoredTokens:
    """The tokens of one clip as an index holds them, see :class:`EncodedClips`: [N, T], [N], [N], [N]."""

    tokens: NDArray[np.float16]
    mask: NDArray[np.bool_]
    frames: NDArray[np.int16]
    slots: NDArray[np.int16]


class Encoder(Protocol):
    """Turns clips and queries into one space, and says which region answers which word.

    Attributes:
        name: as the user named it.
        width: D; 0 for an encoder of words alone.
        has_tokens: whether clips have tokens that could be stored, and queries be compared with them.
        reads_pictures: whether it looks at frames; it then needs no regions.
    """

    name: str
    width: int
    has_tokens: bool
    reads_pictures: bool

    def identity(self) -> dict[str, Any]:
        """What decides whether two encoders give the same vectors: JSON values, free of paths."""

    def place(self) -> str:
        """Where it was opened from, so that a search can open it again; empty where there is nothing to open."""

    def encode_clips(self, clips: Sequence[ClipInput]) -> EncodedClips:
        """Encodes B clips, each on its own: the same clip gives the same vectors in any company, to rounding."""

    def encode_queries(self, texts: Sequence[str], words: bool = True) -> list[Query]:
        """Encodes Q sentences. A sentence longer than the encoder reads loses its end.

        Args:
            words: also what :meth:`word_weights` needs.
        """

    def token_scores(self, query: Query, tokens: Floats, mask: NDArray[np.bool_], pooled: Floats) -> Floats:
        """[B] float32: the full similarity of a query with clips of tokens [B, N, T], mask [B, N], pooled [B, D]."""

    def word_weights(self, query: Query, evidence: Evidence, stored: StoredTokens | None) -> Floats | None:
        """[W, n] float32: how much each region answers each word of the query; NaN where that is not known.

        None where nothing is known. ``stored`` is the clip's tokens, where the index holds them.
        """


def words_of(text: str, most: int = 32) -> list[str]:
    """The words of a text that may point at something, in order, each once, as they stand there, at most ``most``."""
    found = {match.group().lower(): match.group() for match in _WORD.finditer(text)}
    pointing = [word for lower, word in found.items() if lower not in _POINTLESS]
    return (pointing or list(found.values()))[:most]


def token_rows(evidence: Evidence, stored: StoredTokens) -> NDArray[np.int64]:
    """[n] int64: which of a clip's tokens each region of its evidence is; -1 where none is."""
    row = {
        (int(f), int(s)): i
        for i, (f, s) in enumerate(zip(stored.frames, stored.slots, strict=True))
        if stored.mask[i]
    }
    places = (row.get((int(f), int(s)), -1) for f, s in zip(evidence.frame, evidence.slot, strict=True))
    return np.fromiter(places, np.int64, len(evidence.frame))


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Vectors of length 1 along the last axis, float32; zeros stay zeros."""
    vectors = vectors.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    found: Floats = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return found
