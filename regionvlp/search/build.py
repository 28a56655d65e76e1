"""Clips into an index: what is new or changed is encoded, what is there already is left alone.

In: a writer, the clips of shard folders or of videos. Out: a tally. A pass that was interrupted is gone on with by the
next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from regionvlp.errors import VideoError
from regionvlp.search.clips import Clip, ClipInput, ShardClips
from regionvlp.search.folder import Unread
from regionvlp.search.thumbnails import jpeg
from regionvlp.search.writer import BATCH, Encodings, IndexWriter

Thumbnails = Callable[[Sequence[Clip]], Sequence[bytes]]
PICTURES_AT_ONCE = 32  # that are held and encoded together
LOOKED_AT = 64  # clips with pictures that are published together: minutes of work on a small machine


class ClipSource(Protocol):
    """Clips that can be read, such as :class:`~regionvlp.search.clips.ShardClips`."""

    def inputs(self, clips: Sequence[Clip]) -> Iterator[ClipInput | VideoError]:
        """Some clips, in order, with all that is read of them; an error for one that cannot be read."""


@dataclass
class Built:
    """What a pass did.

    Attributes:
        added: clips that were encoded. kept: clips that were up to date.
        removed: clips that were taken out. gone: clips that their source no longer holds, and that are still there.
    """

    added: int = 0
    kept: int = 0
    removed: int = 0
    gone: int = 0


def index_shards(
    writer: IndexWriter,
    source: ShardClips,
    *,
    prune: bool = False,
    thumbnails: Thumbnails | None = None,
    on_plan: Callable[[int, int], None] = lambda total, todo: None,
    on_clips: Callable[[int], None] = lambda count: None,
) -> Built:
    """Brings an index up to date with shard folders, which are all that it is made of.

    Args:
        writer: of the index. source: the clips.
        prune: take out the clips that the shards no longer hold.
        thumbnails: makes a small JPEG of each clip that comes without pictures; None to keep none at all.
        on_plan: called once, with the number of clips and of those to encode.
        on_clips: called after each batch with its size.

    Raises:
        ShardError: a file of the shards is damaged, or the disk refuses. What was added before stays.
    """
    clips = source.clips()
    stamps = writer.stamps
    todo = [clip for clip in clips if stamps.get(clip.clip_id) != clip.stamp]
    built = Built(kept=len(clips) - len(todo))
    on_plan(len(clips), len(todo))
    unread = add_clips(writer, source, todo, built, thumbnails=thumbnails, on_clips=on_clips)
    writer.relocate({clip.video_id: clip.path for clip in clips if clip.path})
    gone = stamps.keys() - {clip.clip_id for clip in clips}
    if prune:
        built.removed += writer.remove(gone)
    else:
        built.gone = len(gone)
    failed = [Unread(f.video_id, f.stage, f.reason, f.message, "", f.transient) for f in source.failures]
    writer.note(unread=[*failed, *(_row(clip, error) for clip, error in unread)])
    return built


def add_clips(
    writer: IndexWriter,
    source: ClipSource,
    clips: Sequence[Clip],
    built: Built,
    *,
    thumbnails: Thumbnails | None = None,
    on_clips: Callable[[int], None] = lambda count: None,
) -> list[tuple[Clip, VideoError]]:
    """Reads, encodes and adds clips, a batch at a time; counts them in ``built``.

    Returns:
        The clips that cannot be read, and why.
    """
    unread: list[tuple[Clip, VideoError]] = []
    done: list[Encodings] = []
    waiting: list[ClipInput] = []

    def encode() -> None:
        if waiting:
            done.append(writer.encoded(_with_thumbnails(waiting, thumbnails) if thumbnails else waiting))
            built.added += len(waiting)
            on_clips(len(waiting))
            waiting.clear()

    def publish() -> None:
        writer.publish(done)
        done.clear()

    for clip, found in zip(clips, source.inputs(clips), strict=True):
        if isinstance(found, VideoError):
            unread.append((clip, found))
            on_clips(1)
            continue
        waiting.append(found)
        held = sum(len(item.pictures.frames) for item in waiting if item.pictures is not None)
        if held >= PICTURES_AT_ONCE or len(waiting) >= BATCH:
            encode()
        if sum(map(len, done)) >= (LOOKED_AT if held else BATCH):
            publish()
    encode()
    publish()
    return unread


def _with_thumbnails(inputs: Sequence[ClipInput], thumbnails: Thumbnails) -> list[ClipInput]:
    """Clips with small pictures: of what was decoded anyway, else as ``thumbnails`` makes them."""
    made = thumbnails([item.clip for item in inputs if item.pictures is None])
    left = iter(made)
    return [replace(item, thumbnail=next(left) if item.pictures is None else _middle(item)) for item in inputs]


def _middle(item: ClipInput) -> bytes:
    assert item.pictures is not None
    frames = item.pictures.frames
    return jpeg(frames[len(frames) // 2])


def _row(clip: Clip, error: VideoError) -> Unread:
    return Unread(clip.clip_id, error.stage, error.reason, error.message, "", error.transient)
