"""Toy world: deterministic, captions that name what is drawn, boxes that hold it, splits that share no caption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from regionvlp.pipelines import toyworld


def test_the_same_seed_gives_the_same_clips() -> None:
    for one, other in zip(toyworld.clips(4, split="test"), toyworld.clips(4, split="test"), strict=True):
        assert one.caption == other.caption
        assert np.array_equal(one.frames, other.frames)
    other_seed = next(toyworld.clips(1, split="test", seed=1))
    assert not np.array_equal(other_seed.frames, next(toyworld.clips(1, split="test")).frames)


def test_captions_name_their_objects_and_splits_share_none() -> None:
    captions = {split: [c.caption for c in toyworld.clips(300, split=split)] for split in ("train", "test")}
    assert len(set(captions["train"])) == len(set(captions["test"])) == 300
    assert not set(captions["train"]) & set(captions["test"])
    for clip in toyworld.clips(40, split="train"):
        for thing in clip.objects:
            assert clip.caption[slice(*thing.noun_span)] == thing.noun
            assert clip.caption[slice(*thing.colour_span)] == thing.colour
            assert thing.noun in toyworld.SHAPES[thing.shape]


def test_boxes_hold_the_object() -> None:
    seen = 0
    for clip in toyworld.clips(30, split="train"):
        if len(clip.objects) > 1:
            continue  # a second object may hide the first
        colour = np.array(toyworld.COLOURS[clip.objects[0].colour])
        for t, box in enumerate(clip.boxes[:, 0]):
            if np.isnan(box[0]):
                assert clip.objects[0].action == "appear"
                continue
            x1, y1, x2, y2 = box.astype(int)
            near = np.abs(clip.frames[t].astype(int) - colour).max(-1) < 30
            assert near[y1:y2, x1:x2].sum() >= 0.9 * near.sum()
            seen += 1
    assert seen > 100


def test_written_clips_read_back(tmp_path: Path) -> None:
    from regionvlp.video import read_frames

    ids = toyworld.write_clips(tmp_path, 3, split="test")
    rows = [json.loads(line) for line in (tmp_path / "test.jsonl").read_text().splitlines()]
    assert [row["video_id"] for row in rows] == ids
    clips = list(toyworld.clips(3, split="test"))
    for clip, row in zip(clips, rows, strict=True):
        decoded = read_frames(tmp_path / clip.video_id, 4)
        assert row["caption"] == clip.caption
        for index, frame in zip(decoded.frame_index, decoded.frames, strict=True):
            assert np.abs(frame.astype(int) - clip.frames[index].astype(int)).mean() < 8
        assert len(row["objects"][0]["boxes"]) == toyworld.NUM_FRAMES
