"""``hub:NAME`` and ``hub:FOLDER``: a model of pictures and sentences as an encoder. It looks at frames; no detector.

In: clips with their frames, sentences. Out: vectors of one space, one for each clip and one for each of its regions, or
for each cell of a grid where no detector looked. Each frame goes through the model once.

Shape letters: F frames of a clip, R regions or cells of a frame, D width, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.models.hub.base import JointModel
from regionvlp.models.hub.files import ModelFiles
from regionvlp.search.clips import ClipInput, Evidence
from regionvlp.search.encoders.base import EncodedClips, Floats, Query, StoredTokens, token_rows, unit, words_of

_AT_ONCE = 32  # pictures in one forward
_REMEMBERED = 64  # frames; overlapping windows share theirs
_MOST_WORDS = 4096  # whose vectors are kept
_TEXTS = 64  # in one forward
# How much the words count beside the sentence, in re-ranking. Not tuned: no public figure says how much, and whoever
# has captions can compare 'eval index' with and without --no-rerank.
_WORDS_SHARE = 0.5
Frame = tuple[str, str, int]  # whose, as it was, which
Looked = tuple[Floats, Floats | None]  # [D] of a frame, and [n, D] of its regions in the order of the evidence


class HubEncoder:
    """See the top of this file.

    A clip's vector is the mean of its frames' vectors, as PE-Core takes videos (Bolya et al., 2025).

    Args:
        model: of pictures and sentences. files: its files. name: as the user named it.
    """

    reads_pictures = True

    def __init__(self, model: JointModel, files: ModelFiles, name: str) -> None:
        self.name, self.width, self.has_tokens = name, model.width, model.path is not None
        self._model, self._files = model, files
        self._identity: dict[str, Any] | None = None
        self._words: dict[str, Floats] = {}
        self._frames: dict[Frame, Looked] = {}

    def identity(self) -> dict[str, Any]:
        if self._identity is None:
            self._identity = self._files.identity()
        return self._identity

    def place(self) -> str:
        """A name of the Hub pinned to its commit, or a folder."""
        files = self._files
        pinned = files.name and files.revision and not (files.folder / "source.json").is_file()
        return f"hub:{files.name}@{files.revision}" if pinned else str(files.folder)

    def encode_clips(self, clips: Sequence[ClipInput]) -> EncodedClips:
        vectors = self._seen(clips)
        pooled = np.stack([unit(np.mean([vectors[key][0] for key in _keys(clip)], 0)) for clip in clips])
        if not self.has_tokens:
            return EncodedClips(pooled)
        most, slots = clips[0].most
        tokens = np.zeros((len(clips), most, slots, self.width), np.float32)
        for b, clip in enumerate(clips):
            evidence = clip.evidence
            for f, key in enumerate(_keys(clip)):
                mine = (evidence.frame == f) & (evidence.slot >= 0)
                tokens[b, f, evidence.slot[mine]] = vectors[key][1]
        mask = (tokens != 0).any(-1)
        frames = np.broadcast_to(np.arange(most, dtype=np.int16)[:, None], (len(clips), most, slots))
        each = np.broadcast_to(np.arange(slots, dtype=np.int16), frames.shape)
        flat = (len(clips), most * slots)
        return EncodedClips(
            pooled, tokens.reshape(*flat, self.width), mask.reshape(flat), frames.reshape(flat), each.reshape(flat)
        )

    def encode_queries(self, texts: Sequence[str], words: bool = True) -> list[Query]:
        pointing = [words_of(text) for text in texts]
        longest = self._model.longest
        queries = []
        for text, row, pooled in zip(texts, pointing, self._read(texts), strict=True):
            cut = self._model.tokens_of(text) > longest
            notes = (f"{self.name} reads {longest} tokens, and not the end of the query",) if cut else ()
            queries.append(Query(text, pooled, row if words else (), {"words": row}, notes))
        return queries

    def token_scores(self, query: Query, tokens: Floats, mask: NDArray[np.bool_], pooled: Floats) -> Floats:
        """The cosine of sentence and clip, and a share of the mean over words of the cosine with their best region."""
        scores: Floats = pooled @ np.asarray(query.pooled, np.float32)
        if query.about["words"]:
            cosines = unit(tokens) @ self._vectors(query.about["words"]).T  # [B, N, W]
            best = np.where(mask[..., None], cosines, -1.0).max(1)
            # A clip that nothing is seen of has no region to speak for it.
            scores += (_WORDS_SHARE * np.where(mask.any(1), best.mean(1), 0.0)).astype(np.float32)
        return scores.astype(np.float32)

    def word_weights(self, query: Query, evidence: Evidence, stored: StoredTokens | None) -> Floats | None:
        """By how much the cosine of word and region is above that of word and clip as a whole (its mean region)."""
        if stored is None or not query.words:
            return None
        places = token_rows(evidence, stored)
        known = places >= 0
        if not known.any():
            return None
        weights: Floats = self._vectors(query.words) @ unit(stored.tokens[places]).T
        weights -= weights[:, known].mean(1, keepdims=True)
        weights[:, ~known] = np.nan
        return weights

    def _seen(self, clips: Sequence[ClipInput]) -> dict[Frame, Looked]:
        """What every frame of the clips gives, each frame looked at once."""
        todo: dict[Frame, tuple[NDArray[np.uint8], tuple[Floats, NDArray[np.bool_]]]] = {}
        found: dict[Frame, Looked] = {}
        for clip in clips:
            pictures = clip.pictures
            if pictures is None:
                raise InputError(
                    f"the encoder {self.name} looks at frames, and there are none of {clip.clip.clip_id!r}",
                    "say where the videos are with --videos, or give a folder of 'extract --what frames' as --shards",
                )
            evidence = clip.evidence
            for f, (key, frame) in enumerate(zip(_keys(clip), pictures.frames, strict=True)):
                if key in self._frames:
                    found[key] = self._frames[key]
                elif key not in todo:
                    height, width = pictures.frame_size[f].tolist()
                    boxes = evidence.boxes[(evidence.frame == f) & (evidence.slot >= 0)]
                    todo[key] = frame, self._model.framing.place(boxes, (height, width))
        keys = list(todo)
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            looked = self._look([todo[key][0] for key in part], [todo[key][1] for key in part])
            found |= dict(zip(part, looked, strict=True))
        self._frames = dict([*self._frames.items(), *found.items()][-_REMEMBERED:])
        return found

    def _look(
        self, frames: Sequence[NDArray[np.uint8]], placed: Sequence[tuple[Floats, NDArray[np.bool_]]]
    ) -> list[Looked]:
        """Vectors of frames and of the boxes on them; zeros for a box of which the model sees nothing."""
        seen = self._model.see(torch.stack([self._model.prepare(frame) for frame in frames]), self.has_tokens)
        pooled = seen.pooled.cpu().numpy()
        if not self.has_tokens:
            return [(row, None) for row in pooled]
        flat = iter(self._model.box_vectors(seen, [boxes[visible] for boxes, visible in placed]))
        looked: list[Looked] = []
        for row, (_, visible) in zip(pooled, placed, strict=True):
            vectors = np.zeros((len(visible), self.width), np.float32)
            for place in np.flatnonzero(visible):
                vectors[place] = next(flat)
            looked.append((row, vectors))
        return looked

    def _read(self, texts: Sequence[str]) -> Floats:
        parts = [self._model.read(texts[start : start + _TEXTS]) for start in range(0, len(texts), _TEXTS)]
        return np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)

    def _vectors(self, words: Sequence[str]) -> Floats:
        """[W, D]: words as sentences of their own."""
        new = [word for word in dict.fromkeys(words) if word not in self._words]
        known = {**self._words, **dict(zip(new, self._read(new), strict=True))}
        self._words = dict(list(known.items())[-_MOST_WORDS:])
        return np.stack([known[word] for word in words])


def _keys(clip: ClipInput) -> list[Frame]:
    """What tells frames apart. Without a detector, windows of one file share those that they have in common."""
    assert clip.pictures is not None
    whose = clip.clip.clip_id if clip.regions else clip.clip.video_id
    return [(whose, f"{clip.clip.stamp} {clip.grid}", int(index)) for index in clip.pictures.frame_index]


def open_hub_encoder(name: str, device: str = "cpu") -> HubEncoder:
    """Opens ``hub:NAME`` or ``hub:FOLDER``.

    Raises:
        InputError: there is no such model, or it is of another kind. WeightsError: it cannot be fetched or read.
    """
    from regionvlp.models.hub.opening import choose_precision, open_joint_model

    model, files = open_joint_model(name.partition(":")[2], device)
    choose_precision(model)
    return HubEncoder(model, files, name)
