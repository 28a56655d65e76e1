"""A checkpoint of ours as an encoder. The one place where search touches how models and batches are made.

In: regions of clips, sentences. Out: what the model's two towers make of them, in numpy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from regionvlp.checkpoints.folder import Checkpoint, load_checkpoint
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.settings import RegionClipSettings
from regionvlp.data.sources import text_reader
from regionvlp.errors import InputError
from regionvlp.evaluation.encode import encode_clips, encode_texts
from regionvlp.models.encoded import Encoded
from regionvlp.search.clips import ClipInput, Evidence
from regionvlp.search.encoders.base import EncodedClips, Floats, Query, StoredTokens, token_rows, unit, words_of
from regionvlp.store.files import sha256_of
from regionvlp.weights.modules import WEIGHTS

_BATCH = 64


class CheckpointEncoder:
    """A trained model over the regions of the first detector.

    Args:
        checkpoint: opened; see :func:`open_checkpoint_encoder`.
        name: as the user named it.
    """

    has_tokens = True
    reads_pictures = False

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        self.name, self._checkpoint, self._system = name, checkpoint, checkpoint.system
        config = checkpoint.config
        if not isinstance(config.data.clips, RegionClipSettings):
            raise InputError(f"the checkpoint {name} does not read regions", "name one that does")
        self._clips: RegionClipSettings = config.data.clips
        self._choice = FrameChoice(config.eval.frames or self._clips.frames)
        self._texts = text_reader(config.data, checkpoint.tokenizer)
        self._longest = config.data.text_length
        self._pools = getattr(config.loss, "use_global", True)
        self._device = next(self._system.parameters()).device
        self.width = int(next(self._encoded(["width"])).pooled.shape[1])

    @property
    def tokens_per_clip(self) -> int:
        """N."""
        return self._choice.frames * self._clips.regions

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "checkpoint",
            "weights": sha256_of(self._checkpoint.path / WEIGHTS),
            "tokenizer": self._checkpoint.tokenizer.hash,
            "frames": self._choice.frames,
            "regions": self._clips.regions,
        }

    def place(self) -> str:
        return str(self._checkpoint.shared or self._checkpoint.path.absolute())

    def check(self, manifest: Any, folder: Path) -> None:
        """Refuses shards of another detector than the model's; see :meth:`Checkpoint.check_shards`."""
        self._checkpoint.check_shards(manifest, folder)

    def encode_clips(self, clips: Sequence[ClipInput]) -> EncodedClips:
        regions = {clip.clip.clip_id: clip.regions[0] for clip in clips}
        source = RegionClips(regions, list(regions), self._clips)
        parts = encode_clips(self._system, source, self._choice, device=self._device, batch_size=_BATCH)
        encoded = Encoded.cat(list(parts)).to("cpu").to(torch.float32)
        frames, slots = self._places([video.num_frames for video in regions.values()])
        mask = encoded.mask.numpy()
        return EncodedClips(self._pooled(encoded), encoded.tokens.numpy(), mask, frames, slots)

    def encode_queries(self, texts: Sequence[str], words: bool = True) -> list[Query]:
        queries: list[Query] = []
        for encoded in self._encoded(texts):
            part = texts[len(queries) : len(queries) + len(encoded)]
            for row, (text, pooled) in enumerate(zip(part, self._pooled(encoded), strict=True)):
                pointing = words_of(text) if words else []
                about = {"encoded": encoded[row : row + 1], "words": self._word_tokens(text, pointing, encoded, row)}
                queries.append(Query(text, pooled, pointing, about))
        return queries

    def token_scores(self, query: Query, tokens: Floats, mask: NDArray[np.bool_], pooled: Floats) -> Floats:
        """The sum that retrieval ranks by. ``pooled`` is of length 1, which cosines do not care about."""
        video = Encoded(torch.from_numpy(pooled), torch.from_numpy(tokens), torch.from_numpy(mask)).to(self._device)
        with torch.inference_mode():
            scores: Tensor = self._system.similarity(video, query.about["encoded"].to(self._device))
        found: Floats = scores[0].float().cpu().numpy()
        return found

    def word_weights(self, query: Query, evidence: Evidence, stored: StoredTokens | None) -> Floats | None:
        """The mean cosine of a word's pieces with a region's token."""
        if stored is None or not query.words:
            return None
        places = token_rows(evidence, stored)
        tokens = unit(stored.tokens[places])
        weights = np.stack([(unit(pieces) @ tokens.T).mean(0) if len(pieces) else np.full(len(places), np.nan)
                            for pieces in query.about["words"]]).astype(np.float32)  # fmt: skip
        weights[:, places < 0] = np.nan
        return weights

    def _encoded(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """Batches of sentences, on the CPU."""
        for part in encode_texts(self._system, texts, self._texts, device=self._device, batch_size=_BATCH):
            yield part.to("cpu").to(torch.float32)

    def _word_tokens(self, text: str, words: Sequence[str], encoded: Encoded, row: int) -> list[Floats]:
        """For each word, the tokens of its pieces, [pieces, D]; none where truncation cut it off."""
        found = []
        read = self._texts.select.select(text) if self._texts.select else text
        for word in words:
            place = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", read, re.IGNORECASE)
            rows = self._checkpoint.tokenizer.tokens_of(read, place.span(), self._longest) if place else []
            # Row 0 of a caption is [CLS], which is no token here.
            found.append(encoded.tokens[row, [i - 1 for i in rows]].numpy())
        return found

    def _pooled(self, encoded: Encoded) -> Floats:
        """[B, D] of length 1; of a model that learnt from tokens alone, the mean direction of its tokens."""
        pooled = encoded.pooled
        if not self._pools:
            pooled = (functional.normalize(encoded.tokens, dim=-1) * encoded.mask[..., None]).sum(1)
        return functional.normalize(pooled.float(), dim=-1).numpy()

    def _places(self, counts: Sequence[int]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Of each token, the frame of the clip and the slot whose region it is: [B, N] each."""
        slots = self._clips.regions
        chosen, _ = self._choice.slots(counts)
        frames = np.repeat(chosen[:, :, None], slots, axis=2).astype(np.int16)
        each = np.broadcast_to(np.arange(slots, dtype=np.int16), frames.shape)
        return frames.reshape(len(counts), -1), each.reshape(len(counts), -1).copy()


def open_checkpoint_encoder(path: str, device: str = "cpu") -> CheckpointEncoder:
    """Opens a checkpoint or run folder as an encoder.

    Raises:
        InputError: nothing is there, or it is no checkpoint. WeightsError: its weights do not fit.
    """
    return CheckpointEncoder(load_checkpoint(path, device), path)
