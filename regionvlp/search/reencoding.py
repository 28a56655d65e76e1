"""The exact certificate: a clip is encoded again, once for each set of regions as if they had never been there.

A model of regions reads the shards without them. An encoder that looks at frames sees them painted over in the mean
colour of their frame, and where a detector drew boxes, has none there. Labels lose those of the regions.

In: a clip of an index, sets of its regions. Out: an encoder's scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from regionvlp.errors import InputError, VideoError
from regionvlp.regions import VideoRegions, cast_features
from regionvlp.search.certificate import Asked, changed, score_of
from regionvlp.search.clips import ClipInput, Evidence, VideoClips
from regionvlp.search.encoders.base import Floats
from regionvlp.search.encoders.labels import LabelSentences, LabelWords, document
from regionvlp.search.from_shards import ShardTokens
from regionvlp.search.pictures import Decoding, Pictures

if TYPE_CHECKING:
    from regionvlp.search.index import Index

_AT_ONCE = 16  # clips


def reencoded(
    index: Index, one: Asked, row: int, evidence: Evidence, drops: Sequence[Collection[int]]
) -> Floats | None:
    """[len(drops)]: what an encoder's score of a clip becomes without each set of its regions.

    None where the encoder's ranking does not reach the clip.

    Raises:
        InputError: what the clip was made of is gone, or is not what it was.
    """
    score = score_of(one.ranked, row)
    if score is None:
        return None
    if isinstance(one.encoder, LabelWords):
        texts = [document(evidence.without(drop)) for drop in drops]
        return np.array(index.words.match_changed(one.query.text, index.clip(row).clip_id, texts), np.float32)
    if isinstance(one.encoder, LabelSentences):
        vectors = one.encoder.vectors([evidence, *(evidence.without(drop) for drop in drops)])
        return changed(score, vectors @ np.asarray(one.query.pooled, np.float32))
    whole = clip_input(index, row, one.encoder.reads_pictures)
    if not _same(whole.evidence, evidence):
        raise InputError(
            f"'{index.clip(row).clip_id}' is not what was indexed any more", "index it again, or leave reencode out"
        )
    scores = np.concatenate([
        _scores(one, part, row in one.ranked.rows[: one.first])
        for part in _batches([whole, *(without(whole, drop) for drop in drops)])
    ])  # fmt: skip
    # What is stored is in half precision: the difference is taken between clips that were encoded alike.
    found: Floats = (score + scores[1:] - scores[0]).astype(np.float32)
    return found


def clip_input(index: Index, row: int, looks: bool) -> ClipInput:
    """What a clip of an index was made of.

    Args:
        looks: whether its frames are needed.

    Raises:
        InputError: it is gone, or is not what it was.
    """
    clip = index.clip(row)
    shards = ShardTokens(index.folder, index.manifest)
    if not looks:
        return shards.read(clip)
    detected = any(index.manifest.cut.get(name) for name in ("detector", "detectors"))
    with Decoding(len(index.evidence(row).frame_time)) as frames:
        sought = _with_frames(shards.read(clip), frames) if detected else VideoClips([clip], frames).inputs([clip])
        (found,) = sought
    if isinstance(found, VideoError):
        raise InputError(f"cannot look at '{clip.clip_id}' again: {found.message}", "leave reencode out")
    return found


def _with_frames(known: ClipInput, frames: Decoding) -> Iterator[ClipInput | VideoError]:
    for pictures in frames.pictures([known.clip]):
        yield pictures if isinstance(pictures, VideoError) else replace(known, pictures=pictures)


def without(clip: ClipInput, drop: Collection[int]) -> ClipInput:
    """A clip some of whose regions were never there."""
    evidence = clip.evidence
    changed = replace(clip.clip, stamp=f"{clip.clip.stamp} without {sorted(drop)}")
    pictures = None if clip.pictures is None else _painted(clip.pictures, evidence, drop)
    regions, start = [], 0
    for one in clip.regions:
        count = int(one.num_regions.sum())
        regions.append(_left(one, {region - start for region in drop if start <= region < start + count}))
        start += count
    return replace(clip, clip=changed, regions=tuple(regions), pictures=pictures)


def _left(regions: VideoRegions, drop: Collection[int]) -> VideoRegions:
    """The regions of a video, numbered frame by frame, without some: those behind them move up."""
    if not drop:
        return regions
    fields = {name: value.copy() for name, value in vars(regions).items() if isinstance(value, np.ndarray)}
    number = 0
    for frame, count in enumerate(regions.num_regions.tolist()):
        kept = [slot for slot in range(count) if number + slot not in drop]
        number += count
        for name in ("features", "boxes", "scores", "class_ids", "attribute_ids", "attribute_scores"):
            values = fields[name][frame]
            values[: len(kept)] = values[kept]
            values[len(kept) :] = 0
        fields["num_regions"][frame] = len(kept)
    return VideoRegions(video_id=regions.video_id, **fields)


def _painted(pictures: Pictures, evidence: Evidence, drop: Collection[int]) -> Pictures:
    frames = list(pictures.frames)
    for region in drop:
        number = int(evidence.frame[region])
        frame = frames[number].copy()
        scale = np.array(frame.shape[1::-1]) / np.array(evidence.frame_size[number][::-1])
        (x1, y1), (x2, y2) = evidence.boxes[region].reshape(2, 2) * scale
        inside = slice(int(y1), int(np.ceil(y2))), slice(int(x1), int(np.ceil(x2)))
        frame[inside] = pictures.frames[number].reshape(-1, 3).mean(0).astype(np.uint8)
        frames[number] = frame
    return replace(pictures, frames=tuple(frames))


def _same(one: Evidence, other: Evidence) -> bool:
    return one.boxes.shape == other.boxes.shape and np.allclose(one.boxes, other.boxes, atol=0.5)


def _batches(clips: Sequence[ClipInput]) -> Iterator[Sequence[ClipInput]]:
    for start in range(0, len(clips), _AT_ONCE):
        # An encoder may tell clips by their ids.
        part = clips[start : start + _AT_ONCE]
        yield [replace(one, clip=replace(one.clip, clip_id=f"{one.clip.clip_id}#{i}")) for i, one in enumerate(part)]


def _scores(one: Asked, clips: Sequence[ClipInput], by_tokens: bool) -> Floats:
    made = one.encoder.encode_clips(clips)
    assert made.pooled is not None
    pooled = made.pooled.astype(np.float16).astype(np.float32)
    if not by_tokens or made.tokens is None or made.mask is None:
        assert one.query.pooled is not None
        scores: Floats = pooled @ one.query.pooled
        return scores
    return one.encoder.token_scores(
        one.query, cast_features(made.tokens.astype(np.float16), np.float32), made.mask, pooled
    )
