"""A whole run: every video and every query once, blocks that fit together, rows and columns the right way round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regionvlp.data.captions import Caption
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.pairs import Pairs
from regionvlp.data.settings import RegionClipSettings
from regionvlp.data.text.reading import TextReader
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import InputError
from regionvlp.evaluation.encode import encode
from regionvlp.evaluation.retrieval import fuse_similarities, rank
from regionvlp.models.encoded import Encoded
from regionvlp.regions import FrameRegions, VideoRegions
from regionvlp.shards import Manifest
from regionvlp.systems.base import Stage, System

VIDEOS = 7
WORDS = ["zero", "one", "two", "three", "four", "five", "six"]


class Matcher(System):
    """Knows the videos by their only feature and the captions by their words."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.known = [tokenizer.encode([word], 16)["input_ids"][0].tolist() for word in WORDS]
        self.seen: list[Any] = []

    def encode_video(self, batch: Mapping[str, Tensor]) -> Encoded:
        assert not self.training
        self.seen += batch["features"][:, 0, 0, 0].tolist()
        return self.one_hot(batch["features"][:, 0, 0, 0].long())

    def encode_text(self, batch: Mapping[str, Tensor]) -> Encoded:
        rows = zip(batch["input_ids"], batch["attention_mask"], strict=True)
        return self.one_hot(torch.tensor([self.known.index(ids[mask].tolist()) for ids, mask in rows]))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        raise NotImplementedError

    def check(self, manifest: Manifest, folder: Path) -> None:
        raise NotImplementedError

    def stages(self) -> list[Stage]:
        return []

    def one_hot(self, index: Tensor) -> Encoded:
        pooled = nn.functional.one_hot(index, VIDEOS).float()
        return Encoded(pooled, pooled[:, None], torch.ones(len(index), 1, dtype=torch.bool))

    def similarities(self, video: Encoded, text: Encoded) -> dict[str, Tensor]:
        return {"global": text.pooled @ video.pooled.T, "local": text.pooled @ video.pooled.T}


def dataset() -> Pairs:
    shards = {}
    for i in range(VIDEOS):
        found = FrameRegions(
            features=np.full((1, 1), i, np.float32),
            boxes=np.array([[0, 0, 4, 4]], np.float32),
            scores=np.ones(1, np.float32),
            class_ids=np.zeros(1, np.int32),
            attribute_ids=np.zeros(1, np.int32),
            attribute_scores=np.zeros(1, np.float32),
        )
        shards[f"v{i}"] = VideoRegions.from_frames(
            f"v{i}", [found], frame_index=[0], frame_time=[0.0], image_size=[(9, 9)], slots=1
        )
    captions = [
        Caption(f"v{i}", WORDS[i], f"{i}-{k}", "", "t") for i in (3, 0, 1, 2, 6, 5, 4) for k in range(1 + i % 2)
    ]
    ids = list(dict.fromkeys(caption.video_id for caption in captions))
    return Pairs(captions, RegionClips(shards, ids, RegionClipSettings(regions=1)), FrameChoice(1))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("training", [False, True])
def test_every_query_finds_its_video(batch_size: int, training: bool) -> None:
    data = dataset()
    tokenizer = TextTokenizer.train(WORDS, 60)
    model, advanced = Matcher(tokenizer), []
    model.train(training)
    run = rank(model, encode(model, data, TextReader(tokenizer, 16), batch_size=batch_size, advance=advanced.append))
    assert model.training is training
    assert sorted(model.seen) == list(range(VIDEOS))
    assert sum(advanced) == VIDEOS + len(data.captions)
    assert run.similarity.shape == (len(data.captions), VIDEOS)
    assert run.similarity.dtype == np.float32
    assert [run.video_ids[i] for i in run.target] == [caption.video_id for caption in run.captions]
    expected = np.zeros_like(run.similarity)
    expected[np.arange(len(run.target)), run.target] = 2
    np.testing.assert_array_equal(run.similarity, expected)


def test_fusion_turns_the_local_part_around() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(5, 3)), rng.normal(size=(3, 5))
    np.testing.assert_array_equal(fuse_similarities(one, other)[4, 1], one[4, 1] + other[1, 4])
    with pytest.raises(InputError, match="as many texts as videos"):
        fuse_similarities(one, other, "public_unaligned")
