from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regionvlp.errors import InputError
from regionvlp.pipelines.cli import run
from regionvlp.search.clips import ClipInput
from regionvlp.search.encoders.base import EncodedClips
from regionvlp.search.from_shards import ShardTokens
from regionvlp.search.index import Index, open_index
from search.worlds import WORLD, video, write_shards


class Features:
    """Encodes a clip as the features of its regions."""

    name = "features"

    def encode_clips(self, clips: Sequence[ClipInput]) -> EncodedClips:
        regions = [clip.regions[0] for clip in clips]
        shape = regions[0].mask().shape
        frames, slots = (np.broadcast_to(part, (len(clips), *shape)) for part in np.indices(shape, np.int16))
        parts = (np.stack([r.features for r in regions]), np.stack([r.mask() for r in regions]), frames, slots)
        return EncodedClips(None, *(part.reshape(len(clips), -1, *part.shape[3:]) for part in parts))


def tokens_of(index: Index) -> list[Any]:
    clips = [index.clip(row) for row in range(len(index))]
    return ShardTokens(index.folder, index.manifest).of(Features(), clips)  # type: ignore[arg-type]


def test_tokens_are_those_of_the_clips_asked_for(shards: Path, tmp_path: Path) -> None:
    assert run(["index", "--shards", str(shards), "--out", str(tmp_path / "i")]) == 0
    index = open_index(tmp_path / "i")
    for clip, made in zip(index.clips.column("clip_id").to_pylist(), tokens_of(index), strict=True):
        features = video(clip, WORLD[clip]).features
        assert np.array_equal(made.tokens, features.reshape(-1, features.shape[-1]).astype(np.float16))
        assert made.mask.sum() == 2 * len(WORLD[clip])
        assert made.tokens.dtype == np.float16


def test_shards_that_are_other_ones_now_are_refused(shards: Path, tmp_path: Path) -> None:
    assert run(["index", "--shards", str(shards), "--out", str(tmp_path / "i")]) == 0
    index = open_index(tmp_path / "i")
    shutil.rmtree(shards)
    with pytest.raises(InputError, match="no longer at"):
        tokens_of(index)
    write_shards(shards, [video("empty.mp4", ["dog"])])
    with pytest.raises(InputError, match=r"hold another state of 'empty.mp4'"):
        tokens_of(index)
    shutil.rmtree(shards)
    write_shards(shards, [video("new.mp4", ["dog"])])
    with pytest.raises(InputError, match=r"no longer hold 'empty.mp4'"):
        tokens_of(index)


def test_of_an_index_of_videos_the_last_extraction_counts(tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    videos, out = tmp_path / "videos", tmp_path / "i"
    options = ("--detector", "own_detectors:Halves", "--frames", "2")
    index = ["index", "--videos", str(videos), "--out", str(out), *options]
    for seed in (1, 2):
        make_clip(videos / "a.mp4", seed)
        make_clip(videos / f"{seed}.mp4", seed)
        assert run(index) == 0
    by_id = dict(zip(open_index(out).clips.column("clip_id").to_pylist(), tokens_of(open_index(out)), strict=True))
    assert set(by_id) == {"1.mp4", "2.mp4", "a.mp4"}
    assert np.array_equal(by_id["a.mp4"].tokens, by_id["2.mp4"].tokens)
    assert not np.array_equal(by_id["a.mp4"].tokens, by_id["1.mp4"].tokens)
    make_clip(videos / "3.mp4", 3)
    assert run([*index, "--discard-regions"]) == 0
    with pytest.raises(InputError, match=r"no longer hold '1.mp4'"):
        tokens_of(open_index(out))
