"""From shard folders into an index: what is new or changed is encoded, what is there already is left alone.

In: a writer, the clips of shard folders. Out: a tally. A pass that was interrupted is gone on with by the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from regionvlp.search.clips import Clip, ShardClips
from regionvlp.search.folder import Unread
from regionvlp.search.writer import BATCH, IndexWriter

Thumbnails = Callable[[Sequence[Clip]], Sequence[bytes]]


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
    thumbnails: Thumbnails = lambda clips: [b""] * len(clips),
    on_plan: Callable[[int, int], None] = lambda total, todo: None,
    on_clips: Callable[[int], None] = lambda count: None,
) -> Built:
    """Brings an index up to date with shard folders, which are all that it is made of.

    Args:
        writer: of the index. source: the clips.
        prune: take out the clips that the shards no longer hold.
        thumbnails: makes a small JPEG of each clip, or nothing.
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
    add_clips(writer, source, todo, built, thumbnails=thumbnails, on_clips=on_clips)
    writer.relocate({clip.video_id: clip.path for clip in clips if clip.path})
    gone = stamps.keys() - {clip.clip_id for clip in clips}
    if prune:
        built.removed += writer.remove(gone)
    else:
        built.gone = len(gone)
    failures = [failure for reader in source.readers[:1] for failure in reader.failures]
    writer.note(unread=[Unread(f.video_id, f.stage, f.reason, f.message, "", f.transient) for f in failures])
    return built


def add_clips(
    writer: IndexWriter,
    source: ShardClips,
    clips: Iterable[Clip],
    built: Built,
    *,
    thumbnails: Thumbnails = lambda clips: [b""] * len(clips),
    on_clips: Callable[[int], None] = lambda count: None,
) -> None:
    """Reads, encodes and adds clips of shard folders, a batch at a time; counts them in ``built``."""
    left = iter(clips)
    while batch := list(islice(left, BATCH)):
        inputs = [source.read(clip) for clip in batch]
        pictures = thumbnails([item.clip for item in inputs])
        writer.add([replace(item, thumbnail=picture) for item, picture in zip(inputs, pictures, strict=True)])
        built.added += len(batch)
        on_clips(len(batch))
