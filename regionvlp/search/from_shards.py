"""Tokens of clips whose index stores none: their regions are read from the shards again, and encoded again.

In: an index, its encoder, clips. Out: the tokens that ``index --tokens`` would have stored, in the half precision in
which it would have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from regionvlp.errors import InputError, ShardError
from regionvlp.search.clips import Clip, ClipInput, ShardClips
from regionvlp.search.encoders.base import Encoder, StoredTokens
from regionvlp.search.folder import IndexManifest


class ShardTokens:
    """The shards that an index was made of, opened at the first question.

    Args:
        folder: the index. manifest: its own.
    """

    def __init__(self, folder: Path, manifest: IndexManifest) -> None:
        self._folder, self._source = folder, manifest.source

    def of(self, encoder: Encoder, clips: Sequence[Clip]) -> list[StoredTokens]:
        """What an encoder makes of each clip.

        Raises:
            InputError: the shards are gone, or hold a clip no longer as it was indexed. ShardError: they are damaged.
        """
        if not clips:
            return []
        made = encoder.encode_clips([self.read(clip) for clip in clips])
        assert made.tokens is not None, f"{encoder.name} has no tokens"
        parts = [getattr(made, name) for name in ("mask", "frames", "slots")]
        return [StoredTokens(*row) for row in zip(made.tokens.astype(np.float16), *parts, strict=True)]

    def read(self, clip: Clip) -> ClipInput:
        """A clip with its regions.

        Raises:
            InputError: the shards are gone, or hold it no longer as it was indexed.
        """
        held = self._held.get(clip.clip_id)
        if held is None or held[1] != clip.stamp:
            state = "hold another state of" if held else "no longer hold"
            raise InputError(
                f"the shards of the index {state} '{clip.clip_id}'",
                "index it again, or search without --from-shards and --certificate reencode",
            )
        return held[0].read(clip)

    @cached_property
    def _held(self) -> dict[str, tuple[ShardClips, str]]:
        """The shards that hold each clip, and its stamp there."""
        return dict(self._of_shards() if "shards" in self._source else self._of_parts())

    def _of_shards(self) -> Iterator[tuple[str, tuple[ShardClips, str]]]:
        folders = [Path(name) for name in self._source["shards"]]
        if gone := next((folder for folder in folders if not folder.is_dir()), None):
            raise InputError(
                f"the shards of the index are no longer at {gone}",
                "put them back, or search without --from-shards and --certificate reencode",
            )
        opened = ShardClips(folders)
        yield from ((clip.clip_id, (opened, clip.stamp)) for clip in opened.clips())

    def _of_parts(self) -> Iterator[tuple[str, tuple[ShardClips, str]]]:
        """Of an index that was made straight from videos; of a clip in several parts, the last counts."""
        for path in sorted((self._folder / self._source.get("regions", "regions")).glob("part-*.parquet")):
            if not path.with_suffix("").is_dir():  # deleted by --discard-regions
                continue
            try:
                rows = pq.read_table(path, columns=["clip_id", "stamp"]).to_pylist()
            except (OSError, ValueError) as error:
                raise ShardError(f"{path} is damaged: {error}", "make the index anew") from None
            opened = ShardClips([path.with_suffix("")])
            stamps = {row["clip_id"]: row["stamp"] for row in rows}
            yield from ((clip_id, (opened, stamps[clip_id])) for clip_id in opened.ids)
