"""Samples and batches: frames, regions, masks, captions, and that they are the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from regionvlp.config import validate
from regionvlp.data.captions import Caption
from regionvlp.data.dataset import Collate, RegionTextDataset, RegionVideos
from regionvlp.data.loading import read_batches
from regionvlp.data.settings import RegionClipSettings, RegionDataSettings
from regionvlp.data.sources import collate_for, open_source
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import ConfigError, InputError, ShardError
from regionvlp.regions import FrameRegions, VideoRegions, location_vectors

WIDTH = 3
TEXTS = ["a red star", "a blue ring", "two stars", "one bar and a ring"]


def frame(rng: np.random.Generator, count: int) -> FrameRegions:
    corners = np.sort(rng.uniform(0, 50, (count, 2, 2)), axis=1)
    return FrameRegions(
        features=rng.normal(size=(count, WIDTH)).astype(np.float32),
        boxes=corners.reshape(count, 4).astype(np.float32),
        scores=rng.uniform(size=count).astype(np.float32),
        class_ids=np.zeros(count, np.int32),
        attribute_ids=np.zeros(count, np.int32),
        attribute_scores=np.zeros(count, np.float32),
    )


def video(name: str, counts: list[int], slots: int = 4) -> VideoRegions:
    rng = np.random.default_rng(sum(name.encode()))
    return VideoRegions.from_frames(
        name,
        [frame(rng, count) for count in counts],
        frame_index=range(len(counts)),
        frame_time=[0.1 * i for i in range(len(counts))],
        image_size=[(60, 80)] * len(counts),
        slots=slots,
    )


@pytest.fixture
def shards() -> dict[str, VideoRegions]:
    names = {"a.mp4": [4, 2, 3, 1, 0, 4, 4, 4], "b.mp4": [2, 3], "c.mp4": [1]}
    return {name: video(name, counts) for name, counts in names.items()}


def clips(**values: Any) -> RegionClipSettings:
    return RegionClipSettings(**{"regions": 4, **values})


def settings(**values: Any) -> RegionDataSettings:
    own = {key: values.pop(key) for key in list(values) if key in RegionClipSettings.model_fields}
    sources = [{"captions": "captions.csv", "shards": "shards"}]
    return validate(RegionDataSettings, {"sources": sources, "clips": {"regions": 4, **own}, **values}, "test")


def captions() -> list[Caption]:
    return [
        Caption(video_id, text, f"{video_id}#{i}", "", "t")
        for video_id in ("a.mp4", "b.mp4", "c.mp4")
        for i, text in enumerate(TEXTS)
    ]


class Frames(dict[str, VideoRegions]):
    """Shards that read single frames, and remember what was read."""

    def num_frames(self, video_id: str) -> int:
        return self[video_id].num_frames

    def frame(self, video_id: str, slot: int) -> VideoRegions:
        whole = self[video_id]
        part = {k: v[slot : slot + 1] for k, v in vars(whole).items() if isinstance(v, np.ndarray)}
        return VideoRegions(video_id=video_id, **part)


@pytest.mark.parametrize("loc_dim", [6, 7])
def test_a_sample_holds_what_the_shards_hold(shards: dict[str, VideoRegions], loc_dim: int) -> None:
    sample = RegionVideos(shards, ["a.mp4"], clips(frames=4, regions=3, loc_dim=loc_dim))[0]
    stored = shards["a.mp4"]
    assert sample["features"].shape == (4, 3, WIDTH)
    assert sample["location"].shape == (4, 3, loc_dim)
    for f, chosen in enumerate([0, 2, 4, 6]):
        valid = min(int(stored.num_regions[chosen]), 3)
        assert sample["region_mask"][f].tolist() == [slot < valid for slot in range(3)]
        expected = location_vectors(stored.boxes[chosen], stored.image_size[chosen], loc_dim)  # type: ignore[arg-type]
        np.testing.assert_array_equal(sample["features"][f, :valid], stored.features[chosen, :valid])
        np.testing.assert_array_equal(sample["location"][f, :valid], expected[:valid])
        assert not sample["features"][f, valid:].any()
        assert not sample["location"][f, valid:].any()


def test_more_slots_than_stored_and_edge_padding(shards: dict[str, VideoRegions]) -> None:
    zeros = RegionVideos(shards, ["b.mp4"], clips(frames=2, regions=6))[0]
    edge = RegionVideos(shards, ["b.mp4"], clips(frames=2, regions=6, padding="edge"))[0]
    assert torch.equal(zeros["region_mask"], edge["region_mask"])
    assert zeros["region_mask"].sum(1).tolist() == [2, 3]
    assert not zeros["features"][~zeros["region_mask"]].any()
    for f, valid in enumerate([2, 3]):
        for key in ("features", "location"):
            assert (edge[key][f, valid:] == edge[key][f, valid - 1]).all()  # type: ignore[literal-required]
            assert torch.equal(edge[key][f, :valid], zeros[key][f, :valid])  # type: ignore[literal-required]


def test_a_short_video_repeats_its_last_frame_masked(shards: dict[str, VideoRegions]) -> None:
    sample = RegionVideos(shards, ["b.mp4"], clips(frames=4))[0]
    assert sample["region_mask"].sum(1).tolist() == [2, 3, 0, 0]
    assert (sample["features"][2:] == sample["features"][1]).all()


def test_single_frames_are_read_alone(shards: dict[str, VideoRegions]) -> None:
    for frames in (1, 3):
        for rng in (None, 5):
            whole, single = (
                RegionVideos(s, ["a.mp4"], clips(frames=frames)).read("a.mp4", rng and np.random.default_rng(rng))
                for s in (shards, Frames(shards))
            )
            assert torch.equal(whole["features"], single["features"])
    stored = RegionVideos(Frames(shards), ["a.mp4"], clips(frames=2)).chosen("a.mp4")
    assert stored.frame_index.tolist() == [1, 5]
    np.testing.assert_array_equal(stored.boxes, shards["a.mp4"].boxes[[1, 5]])


@pytest.mark.parametrize("field", ["features", "boxes"])
def test_values_that_are_no_numbers_name_the_video(shards: dict[str, VideoRegions], field: str) -> None:
    getattr(shards["b.mp4"], field)[1, 0, 0] = np.inf
    with pytest.raises(ShardError, match=r"b\.mp4 hold values that are no numbers"):
        RegionVideos(shards, ["b.mp4"], clips(frames=2))[0]


def test_slots_that_are_padding_throughout_a_batch_are_left_out(shards: dict[str, VideoRegions]) -> None:
    tokenizer = TextTokenizer.train(TEXTS, 100)
    data = RegionTextDataset(captions(), shards, settings(frames=2, regions=6), training=False)
    whole, trimmed = Collate(tokenizer, 16), Collate(tokenizer, 16, trim=True)
    samples = [data[i] for i in (4, 8)]  # b.mp4 has 2 and 3 regions, c.mp4 1
    full, cut = whole(samples), trimmed(samples)
    assert cut["region_mask"].shape == (2, 2, 3)
    for key in ("features", "location", "region_mask"):
        assert torch.equal(cut[key], full[key][:, :, :3])  # type: ignore[literal-required]
    assert not full["region_mask"][:, :, 3:].any()
    samples[0]["region_mask"], samples[1]["region_mask"] = torch.zeros(2, 2, 6, dtype=torch.bool)
    assert trimmed(samples)["features"].shape == (2, 2, 1, WIDTH)


def test_training_draws_captions_and_frames(shards: dict[str, VideoRegions]) -> None:
    data = RegionTextDataset(captions(), shards, settings(), training=True, seed=3)
    assert len(data) == 3
    seen = set()
    for epoch in range(60):
        data.set_epoch(epoch)
        sample, again = data[0], data[0]
        assert sample["caption_id"] == again["caption_id"]
        assert torch.equal(sample["features"], again["features"])
        match = [f for f in range(8) if np.array_equal(shards["a.mp4"].features[f], sample["features"][0])]
        seen.add((sample["caption_id"], match[0]))
    assert {caption for caption, _ in seen} == {f"a.mp4#{i}" for i in range(4)}
    assert {f for _, f in seen} == set(range(8))


def test_all_pairs_and_evaluation_hold_every_caption(shards: dict[str, VideoRegions]) -> None:
    every = RegionTextDataset(captions(), shards, settings(pairs="all"), training=True)
    evaluation = RegionTextDataset(captions(), shards, settings(), training=False)
    assert len(every) == len(evaluation) == 12
    for data in (every, evaluation):
        assert [(data[i]["video_id"], data[i]["caption"]) for i in range(12)] == [
            (c.video_id, c.caption) for c in captions()
        ]
    middle = shards["a.mp4"].features[3].astype(np.float32)
    np.testing.assert_array_equal(evaluation[0]["features"][0], middle)
    with pytest.raises(IndexError):
        evaluation[12]


def test_datasets_refuse_what_is_not_there(shards: dict[str, VideoRegions]) -> None:
    with pytest.raises(InputError, match="no captions"):
        RegionTextDataset([], shards, settings(), training=True)
    del shards["b.mp4"]
    with pytest.raises(InputError, match=r"1 of 3 videos are not in the shards: b\.mp4"):
        RegionTextDataset(captions(), shards, settings(), training=True)


def test_a_batch(shards: dict[str, VideoRegions]) -> None:
    chosen = settings(frames=2, text_length=8, pad_text=True)
    data = RegionTextDataset(captions(), shards, chosen, training=False)
    tokenizer = TextTokenizer.train(TEXTS, 60)
    batch = collate_for(chosen, tokenizer)([data[0], data[4], data[11]])
    assert {key: (tuple(v.shape), v.dtype) for key, v in batch.items() if isinstance(v, torch.Tensor)} == {
        "features": ((3, 2, 4, WIDTH), torch.float32),
        "location": ((3, 2, 4, 7), torch.float32),
        "region_mask": ((3, 2, 4), torch.bool),
        "input_ids": ((3, 8), torch.int64),
        "attention_mask": ((3, 8), torch.bool),
    }
    assert batch["video_id"] == ["a.mp4", "b.mp4", "c.mp4"]
    assert batch["caption_id"] == ["a.mp4#0", "b.mp4#0", "c.mp4#3"]
    assert batch["caption"] == [TEXTS[0], TEXTS[0], TEXTS[3]]
    shorter = Collate(tokenizer, 8)([data[0]])["input_ids"]
    assert torch.equal(shorter, batch["input_ids"][:1, : shorter.shape[1]])


def test_workers_follow_the_epoch_and_fail_in_one_line(shards: dict[str, VideoRegions]) -> None:
    data = RegionTextDataset(captions(), shards, settings(), training=True)
    collate = Collate(TextTokenizer.train(TEXTS, 60), 8)
    loader = DataLoader(data, batch_size=3, collate_fn=collate, num_workers=1, persistent_workers=True)
    for epoch in range(3):
        data.set_epoch(epoch)
        (batch,) = read_batches(loader)
        assert batch["caption_id"] == [data[i]["caption_id"] for i in range(3)]
    shards["b.mp4"].features[:] = np.nan
    with pytest.raises(ShardError) as caught:
        list(read_batches(DataLoader(data, batch_size=3, collate_fn=collate, num_workers=1)))
    assert str(caught.value).startswith("the regions of b.mp4 hold")
    assert "\n" not in str(caught.value)
    with pytest.raises(ShardError) as alone:
        list(read_batches(DataLoader(data, batch_size=3, collate_fn=collate)))
    assert str(alone.value) == str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loc_dim": 5}, "loc_dim = 5"),
        ({"frames": 0}, "frames = 0"),
        ({"text_lenght": 3}, "did you mean 'text_length'"),
        ({"pairs": "some"}, "pairs = 'some'"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**values)


def test_a_source_is_opened_and_joined(
    shards: dict[str, VideoRegions], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reader(Frames):
        video_ids = tuple(shards)

    monkeypatch.setattr("regionvlp.shards.open_shards", lambda path: Reader(shards), raising=False)
    (tmp_path / "captions.csv").write_text("video,caption,split\na,x,train\nb,y,test\nq,z,train\n")
    source = {"captions": str(tmp_path / "captions.csv"), "shards": "s", "split": "test", "frames": 2}
    chosen = settings(sources=[source])
    data = open_source(chosen.sources[0], chosen, training=False)
    assert [c.video_id for c in data.captions] == ["b.mp4"]
    assert data[0]["features"].shape == (2, 4, WIDTH)
    part = settings(sources=[source | {"split": "train"}])
    with pytest.raises(InputError, match="1 of 2 annotated videos are not in the shards: q"):
        open_source(part.sources[0], part, training=True)
    part = settings(sources=[source | {"split": "train", "allow_missing": True}])
    assert len(open_source(part.sources[0], part, training=True)) == 1
