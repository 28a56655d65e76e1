"""Clips and captions by the batch: what a batch holds, what is drawn, and what happens to what cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from regionvlp.config import validate
from regionvlp.data.captions import Caption
from regionvlp.data.clips.frame_choice import FrameChoice
from regionvlp.data.clips.regions import RegionClips
from regionvlp.data.draws import Draws
from regionvlp.data.pairs import Pairs, text_hash
from regionvlp.data.settings import RegionClipSettings, RegionDataSettings
from regionvlp.data.sources import open_source, text_reader
from regionvlp.data.text.reading import TextReader
from regionvlp.data.text.tokenizer import TextTokenizer
from regionvlp.errors import ConfigError, InputError, UnreadableItemsError
from regionvlp.regions import FrameRegions, VideoRegions, location_vectors
from regionvlp.shards import Manifest, ShardWriter, open_shards, read_manifest

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


def opened(
    shards: Mapping[str, VideoRegions],
    values: RegionDataSettings,
    *,
    training: bool = False,
    trim: bool = False,
    seed: int = 0,
    tokenizer: TextTokenizer | None = None,
) -> Pairs:
    """What :func:`open_source` makes of all captions."""
    ids = list(dict.fromkeys(c.video_id for c in captions()))
    return Pairs(
        captions(),
        RegionClips(shards, ids, values.clips, trim=trim),
        FrameChoice(values.clips.frames, values.clips.sampling),
        text_reader(values, tokenizer or TextTokenizer.train(TEXTS, 60)),
        per_video=training and values.pairs == "per_video",
        seed=seed,
    )


def stored_shards(videos: Mapping[str, VideoRegions], folder: Path, form: str = "hdf5", dtype: str = "float16") -> Path:
    """The videos as a shard folder of two shards."""
    manifest = Manifest(
        format=form, dtype=dtype, frames=8, regions=4, feature_width=WIDTH, shard_size=2, detector={"n": 1}, video={},
    )  # fmt: skip
    Manifest.create_or_check(folder, manifest)
    names = list(videos)
    for number in range(2):
        with ShardWriter(folder, number, manifest) as writer:
            for name in names[2 * number : 2 * number + 2]:
                features = videos[name].features.astype(dtype)
                writer.add(dataclasses.replace(videos[name], features=features))
            writer.finish()
    return folder


def read(source: Mapping[str, VideoRegions], ids: list[str], **values: Any) -> dict[str, torch.Tensor]:
    chosen = clips(**values)
    return RegionClips(source, ids, chosen).read_batch(range(len(ids)), FrameChoice(chosen.frames))


@pytest.mark.parametrize("loc_dim", [6, 7])
def test_a_batch_holds_what_the_shards_hold(shards: dict[str, VideoRegions], loc_dim: int) -> None:
    batch = read(shards, ["a.mp4"], frames=4, regions=3, loc_dim=loc_dim)
    sample, stored = {key: values[0] for key, values in batch.items()}, shards["a.mp4"]
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
    zeros = read(shards, ["b.mp4", "a.mp4"], frames=2, regions=6)
    edge = read(shards, ["b.mp4", "a.mp4"], frames=2, regions=6, padding="edge")
    assert torch.equal(zeros["region_mask"], edge["region_mask"])
    assert zeros["region_mask"].sum(2).tolist() == [[2, 3], [2, 4]]
    assert not zeros["features"][~zeros["region_mask"]].any()
    assert not zeros["location"][~zeros["region_mask"]].any()
    for f, valid in enumerate([2, 3]):
        for key in ("features", "location"):
            assert (edge[key][0, f, valid:] == edge[key][0, f, valid - 1]).all()
            assert torch.equal(edge[key][0, f, :valid], zeros[key][0, f, :valid])


@pytest.mark.parametrize("padding", ["zeros", "edge"])
def test_a_frame_without_regions_is_zeros(shards: dict[str, VideoRegions], padding: str) -> None:
    batch = read(shards, ["a.mp4"], frames=8, padding=padding)  # its fifth frame has none
    assert not batch["region_mask"][0, 4].any()
    assert not batch["features"][0, 4].any()
    assert not batch["location"][0, 4].any()


def test_a_short_video_repeats_its_last_frame_masked(shards: dict[str, VideoRegions]) -> None:
    batch = read(shards, ["b.mp4"], frames=4)
    assert batch["region_mask"][0].sum(1).tolist() == [2, 3, 0, 0]
    assert (batch["features"][0, 2:] == batch["features"][0, 1]).all()


@pytest.mark.parametrize("form", ["hdf5", "parquet"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shards_and_memory_give_the_same_batches(
    shards: dict[str, VideoRegions], tmp_path: Path, form: str, dtype: str
) -> None:
    source = open_shards(stored_shards(shards, tmp_path / "shards", form, dtype))
    numbers, draws = [2, 0, 1, 0], Draws((7, 1), np.arange(4))
    for values in ({"frames": 1}, {"frames": 3, "regions": 6, "padding": "edge"}, {"frames": 3, "regions": 2}):
        choice, ids = FrameChoice(int(values["frames"])), list(shards)
        disk, memory, mapping = (
            RegionClips(where, ids, clips(**values, **more)).read_batch(numbers, choice, draws)
            for where, more in ((source, {}), (source, {"in_memory": True}), (dict(source), {}))
        )
        assert disk["features"].dtype == {"float16": torch.float16, "float32": torch.float32}[dtype]
        for key in disk:
            assert torch.equal(disk[key], memory[key])
            assert torch.equal(disk[key], mapping[key])


def test_what_is_stored_of_a_clip(shards: dict[str, VideoRegions], tmp_path: Path) -> None:
    source = RegionClips(open_shards(stored_shards(shards, tmp_path / "s")), list(shards), clips())
    stored = source.stored(0, FrameChoice(2))
    assert stored.frame_index.tolist() == [1, 5]
    np.testing.assert_array_equal(stored.boxes, shards["a.mp4"].boxes[[1, 5]])
    assert source.stored(1, FrameChoice(4)).num_frames == 2


@pytest.mark.parametrize("field", ["features", "boxes"])
def test_values_that_are_no_numbers_name_the_video(shards: dict[str, VideoRegions], field: str) -> None:
    getattr(shards["b.mp4"], field)[1, 0, 0] = np.inf
    with pytest.raises(UnreadableItemsError, match=r"b\.mp4 hold values that are no numbers") as caught:
        read(shards, ["a.mp4", "b.mp4", "c.mp4"], frames=2)
    assert list(caught.value.reasons) == [1]
    assert caught.value.hint


def test_slots_that_are_padding_throughout_a_batch_are_left_out(shards: dict[str, VideoRegions]) -> None:
    full, cut = (opened(shards, settings(frames=2, regions=6), trim=trim).read([4, 8], 0) for trim in (False, True))
    assert cut["region_mask"].shape == (2, 2, 3)  # b.mp4 has 2 and 3 regions, c.mp4 1
    for key in ("features", "location", "region_mask"):
        assert torch.equal(cut[key], full[key][:, :, :3])
    assert not full["region_mask"][:, :, 3:].any()
    shards["c.mp4"].num_regions[:] = 0
    assert opened(shards, settings(regions=6), trim=True).read([8, 9], 0)["features"].shape == (2, 1, 1, WIDTH)


def test_training_draws_captions_and_frames(shards: dict[str, VideoRegions]) -> None:
    data = opened(shards, settings(), training=True, seed=3)
    assert len(data) == 3
    seen = set()
    for epoch in range(60):
        batch, alone = data.read([2, 0, 1], epoch), data.read([0], epoch)
        assert batch["video_id"] == ["c.mp4", "a.mp4", "b.mp4"]
        assert batch["caption"][1] == alone["caption"][0]
        assert torch.equal(batch["features"][1], alone["features"][0])
        match = [f for f in range(8) if np.array_equal(shards["a.mp4"].features[f], alone["features"][0, 0])]
        seen.add((alone["caption"][0], match[0]))
    assert {caption for caption, _ in seen} == set(TEXTS)
    assert {f for _, f in seen} == set(range(8))
    other = opened(shards, settings(), training=True, seed=4)
    assert [other.read([0], e)["caption"] for e in range(60)] != [data.read([0], e)["caption"] for e in range(60)]


def test_all_pairs_hold_every_caption(shards: dict[str, VideoRegions]) -> None:
    data = opened(shards, settings(pairs="all"), training=True)
    assert len(data) == 12
    batch = data.read(range(12), 0)
    assert list(zip(batch["video_id"], batch["caption"], strict=True)) == [(c.video_id, c.caption) for c in captions()]
    assert data.video_of.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    with pytest.raises(IndexError):
        data.read([3, 12], 0)


def test_what_is_not_there_is_refused(shards: dict[str, VideoRegions]) -> None:
    source = RegionClips(shards, ["a.mp4"], clips())
    with pytest.raises(InputError, match="no captions"):
        Pairs([], source, FrameChoice(1))
    del shards["b.mp4"]
    with pytest.raises(InputError, match=r"1 of 3 videos are not in the shards: b\.mp4"):
        opened(shards, settings())


def test_a_batch(shards: dict[str, VideoRegions]) -> None:
    chosen, tokenizer = settings(frames=2, text_length=8, pad_text=True), TextTokenizer.train(TEXTS, 60)
    batch = opened(shards, chosen, tokenizer=tokenizer).read([0, 4, 11], 0)
    assert {key: (tuple(v.shape), v.dtype) for key, v in batch.items() if isinstance(v, torch.Tensor)} == {
        "features": ((3, 2, 4, WIDTH), torch.float16),
        "location": ((3, 2, 4, 7), torch.float32),
        "region_mask": ((3, 2, 4), torch.bool),
        "input_ids": ((3, 8), torch.int64),
        "attention_mask": ((3, 8), torch.bool),
        "clip_number": ((3,), torch.int64),
        "text_hash": ((3,), torch.int64),
    }
    assert batch["video_id"] == ["a.mp4", "b.mp4", "c.mp4"]
    assert batch["caption"] == [TEXTS[0], TEXTS[0], TEXTS[3]]
    shorter = TextReader(tokenizer, 8)([TEXTS[0]])["input_ids"]
    assert torch.equal(shorter, batch["input_ids"][:1, : shorter.shape[1]])


def test_pairs_of_one_clip_or_one_caption_are_known_by_their_keys(shards: dict[str, VideoRegions]) -> None:
    tokenizer = TextTokenizer.train(TEXTS, 60)
    batch = opened(shards, settings(text_length=8), tokenizer=tokenizer).read([0, 4, 11], 0)
    again = opened(shards, settings(text_length=8, pad_text=True), tokenizer=tokenizer).read([4, 11], 1)
    assert batch["clip_number"].tolist() == [0, 1, 2]
    assert batch["text_hash"][0] == batch["text_hash"][1] != batch["text_hash"][2]  # of the first two texts are one
    assert torch.equal(again["text_hash"], batch["text_hash"][1:])  # however wide the batch
    texts = ["a dog", "A  dog", "dog a", "a dog a dog", "a", "", "a dog"]
    hashes = text_hash(TextReader(TextTokenizer.train(["a dog"], 60), 16)(texts)).tolist()
    assert hashes[0] == hashes[1] == hashes[6]
    assert len(set(hashes)) == 5
    tokens = {"input_ids": torch.tensor([[2, 5, 6, 3, 0]]), "attention_mask": torch.tensor([[True] * 4 + [False]])}
    assert text_hash(tokens).item() == -1507449595819295472  # in every process, whatever its libraries


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


def test_a_source_is_opened_and_joined(shards: dict[str, VideoRegions], tmp_path: Path) -> None:
    stored_shards(shards, tmp_path / "shards")
    (tmp_path / "captions.csv").write_text("video,caption,split\na,x,train\nb,y,test\nq,z,train\n")
    source = {"captions": str(tmp_path / "captions.csv"), "shards": str(tmp_path / "shards"), "split": "test"}
    chosen = settings(sources=[source | {"frames": 2}])
    data = open_source(chosen.sources[0], chosen)
    assert [c.video_id for c in data.captions] == ["b.mp4"]
    assert data.clips.read_batch([0], data.choice)["features"].shape == (1, 2, 4, WIDTH)
    part = settings(sources=[source | {"split": "train"}])
    with pytest.raises(InputError, match="1 of 2 annotated videos are not in the shards: q"):
        open_source(part.sources[0], part, training=True)
    part = settings(sources=[source | {"split": "train", "allow_missing": True}])
    assert len(open_source(part.sources[0], part, training=True)) == 1


def test_shards_at_an_address_are_trained_on(shards: dict[str, VideoRegions], tmp_path: Path) -> None:
    here = stored_shards(shards, tmp_path / "shards")
    fsspec.filesystem("memory").put(str(here), "/test-pairs/shards", recursive=True)
    captions_file = tmp_path / "captions.csv"
    captions_file.write_text("video,caption\na,x\nb,y\nc,z\n")
    for staging in (None, tmp_path / "staged"):
        at = {"captions": str(captions_file), "shards": "memory://test-pairs/shards"}
        far = settings(sources=[at], frames=2, staging=staging)
        near = settings(sources=[at | {"shards": str(here)}], frames=2)
        one, other = (
            open_source(each.sources[0], each).clips.read_batch([2, 0, 1], FrameChoice(2)) for each in (far, near)
        )
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read_manifest("memory://test-pairs/shards").feature_width == WIDTH
    assert any((tmp_path / "staged").rglob("*.h5"))
