"""Toy world: deterministic, captions that name what is drawn, boxes that hold it, splits that share no caption."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from regionvlp.pipelines.cli import run
from regionvlp.pipelines.toy import world as toyworld

PLAIN_CAPTIONS = 3720343806  # checksum of the captions that published figures were measured on


def test_the_same_seed_gives_the_same_clips() -> None:
    for one, other in zip(toyworld.clips(4, split="test"), toyworld.clips(4, split="test"), strict=True):
        assert one.caption == other.caption
        assert np.array_equal(one.frames, other.frames)
    other_seed = next(toyworld.clips(1, split="test", seed=1))
    assert not np.array_equal(other_seed.frames, next(toyworld.clips(1, split="test")).frames)


def test_captions_name_their_objects_and_splits_share_none() -> None:
    captions = {split: [c.caption for c in toyworld.clips(100, split=split)] for split in ("train", "test")}
    assert len(set(captions["train"])) == len(set(captions["test"])) == 100
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


def test_the_plain_world_is_what_the_demo_was_measured_on() -> None:
    captions = "\n".join(clip.caption for split in ("train", "test") for clip in toyworld.clips(40, split=split))
    assert zlib.crc32(captions.encode()) == PLAIN_CAPTIONS


def shown(objects: tuple[toyworld.ToyObject, ...]) -> list[tuple[str, ...]]:
    return [(o.shape, o.colour, o.texture, o.size, o.action) for o in objects]


def test_families_of_the_hard_world_differ_in_one_thing() -> None:
    world = toyworld.WORLDS["hard"]
    drawn = list(toyworld.clips(80, split="test", world=world))
    exchanged = 0
    for start in range(0, len(drawn), world.family):
        first, *others = (shown(clip.objects) for clip in drawn[start : start + world.family])
        for other in others:
            changes = [
                (a, b) for one, two in zip(first, other, strict=True) for a, b in zip(one, two, strict=True) if a != b
            ]
            assert len(changes) in (1, 2)
            if len(changes) == 2:  # two objects exchange a value
                assert changes[0] == changes[1][::-1]
                exchanged += 1
        family = [sorted(shown(clip.objects)) for clip in drawn[start : start + world.family]]
        assert all(family.count(member) == 1 for member in family)
    assert 5 < exchanged < 40
    assert len({clip.caption for clip in drawn}) == len(drawn)
    for clip in drawn:
        assert len(clip.objects) == clip.boxes.shape[1] == 2
        assert len({o.shape for o in clip.objects}) == len({o.colour for o in clip.objects}) == 2


def coloured_pixels_elsewhere(clip: toyworld.ToyClip, t: int = 8) -> int:
    """Pixels of an object's colour outside of the boxes of all objects that are named."""
    frame = clip.frames[t].astype(int)
    coloured = np.zeros(frame.shape[:2], bool)
    for colour in toyworld.COLOURS.values():
        coloured |= np.abs(frame - np.array(colour)).max(-1) < 30
    for x1, y1, x2, y2 in np.nan_to_num(clip.boxes[t]).astype(int):
        coloured[y1:y2, x1:x2] = False
    return int(coloured.sum())


def test_bystanders_are_seen_and_not_named() -> None:
    hard = list(toyworld.clips(24, split="train", world=toyworld.WORLDS["hard"]))
    plain = list(toyworld.clips(24, split="train"))
    assert sum(coloured_pixels_elsewhere(clip) > 60 for clip in hard) > 20
    assert sum(coloured_pixels_elsewhere(clip) > 60 for clip in plain) < 2
    rng = np.random.default_rng(0)
    for clip in hard:
        named = [(o.shape, o.colour) for o in clip.objects]
        for other in toyworld._bystanders(rng, clip.objects, 5):
            assert (other.shape, other.colour) not in named
            assert any(other.shape == shape or other.colour == colour for shape, colour in named)


def test_the_command_renders_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["toyworld", "--preset", "hard", "--train", "4", "--test", "2", "--out", str(tmp_path / "w")]
    assert run([*arguments, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "hard"
    clip = tmp_path / "w/videos/train/00003.mp4"
    rows = [json.loads(line) for line in (tmp_path / "w/videos/train.jsonl").read_text().splitlines()]
    drawn = list(toyworld.clips(4, split="train", world=toyworld.WORLDS["hard"]))
    assert [row["caption"] for row in rows] == [clip.caption for clip in drawn]
    before = clip.stat().st_mtime_ns
    assert run(arguments) == 0
    assert clip.stat().st_mtime_ns == before
    assert run([*arguments, "--seed", "1"]) == 2
    assert "clips of another world" in capsys.readouterr().err
