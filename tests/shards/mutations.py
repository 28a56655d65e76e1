"""Data files with random damage, and what reading each of them gave: nothing but the truth, or a named error."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from regionvlp.errors import ShardError
from regionvlp.regions import VideoRegions
from regionvlp.shards import BatchError, ShardReader, open_shards, verify

Mutation = Callable[[bytearray, random.Random], None]


def flip(content: bytearray, rng: random.Random) -> None:
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def flip_near_an_end(content: bytearray, rng: random.Random) -> None:
    """Where both formats keep what a library would parse."""
    place = rng.randrange(min(len(content), 4096))
    content[rng.choice([place, len(content) - 1 - place])] ^= 1 << rng.randrange(8)


def overwrite(content: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(content)), rng.randrange(1, 600)
    content[start : start + size] = rng.randbytes(len(content[start : start + size]))


def blank(content: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(content)), 512
    content[start : start + size] = bytes(len(content[start : start + size]))


def swap(content: bytearray, rng: random.Random) -> None:
    size = rng.randrange(16, 600)
    a, b = rng.randrange(len(content) - size), rng.randrange(len(content) - size)
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def lengthen(content: bytearray, rng: random.Random) -> None:
    content += rng.randbytes(rng.randrange(1, 600))


MUTATIONS: tuple[Mutation, ...] = (flip, flip_near_an_end, overwrite, blank, swap, cut, lengthen)
IN_PLACE = (flip, flip_near_an_end, overwrite, blank, swap)


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Ends what hangs with an error, also inside a library that ignores interrupts."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def campaign(folder: Path, videos: Mapping[str, VideoRegions], shard: int, times: int, seed: int) -> Counter[str]:
    """Damages the data file of a shard in ``times`` ways, one at a time, and reads all of the folder each time.

    Returns:
        How often what came out. ``silent``: numbers that are not the written ones, without an error. ``lost``: a frame
        whose bytes are whole could not be read although the file has its size. ``unseen``: ``verify`` found nothing.
    """
    path = folder / open_shards(folder).manifest.data_name(shard)
    whole = path.read_bytes()
    found: Counter[str] = Counter()
    rng = random.Random(seed)
    for number in range(times):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        content = bytearray(whole)
        mutate(content, rng)
        path.write_bytes(content)
        started = time.monotonic()
        with no_longer_than(20):
            outcome = _read_all(folder, videos, whole, bytes(content), shard, mutate in IN_PLACE)
            if content != whole and not verify(folder):
                outcome["unseen"] += 1
        found.update({f"{mutate.__name__}: {kind}": count for kind, count in outcome.items() if count})
        found["slowest ms"] = max(found["slowest ms"], int(1000 * (time.monotonic() - started)))
    path.write_bytes(whole)
    return found


def _read_all(
    folder: Path, videos: Mapping[str, VideoRegions], whole: bytes, content: bytes, shard: int, in_place: bool
) -> Counter[str]:
    outcome: Counter[str] = Counter(files=1)
    reader = open_shards(folder)
    for row, (name, video) in enumerate(videos.items()):
        for slot in range(video.num_frames):
            damaged = _damaged(reader, row, slot, whole, content) if reader._table.shard_of(row) == shard else False
            try:
                frame = reader.frame(name, slot)
            except ShardError:
                outcome["refused"] += 1
                outcome["lost"] += in_place and not damaged
            else:
                outcome["silent"] += not frame.equals(_frame_of(video, slot))
    try:
        batch, failed = reader.read(list(videos), [0]), set[int]()
    except BatchError as error:
        batch, failed = error.batch, set(error.failed)
    for place, video in enumerate(videos.values()):
        if place not in failed:
            same = np.array_equal(batch.features[place, 0], video.features[0])
            outcome["silent"] += not (same and np.array_equal(batch.boxes[place, 0], video.boxes[0]))
    return outcome


def _damaged(reader: ShardReader, row: int, slot: int, whole: bytes, content: bytes) -> bool:
    """Whether a byte of a frame, or of what its row stores beside the features, changed."""
    table = reader._table
    base, pattern = table.base.item(row), table.pattern_of(table.pattern.item(row))
    spans = [(base + pattern.features[slot], reader.manifest.features.frame_bytes)]
    start = pattern.segments[0][0]
    spans += [(base + start + at + slot * size, size) for at, size in pattern.columns]
    return any(whole[a : a + size] != content[a : a + size] for a, size in spans)


def _frame_of(video: VideoRegions, slot: int) -> VideoRegions:
    fields = {name: values[slot : slot + 1] for name, values in vars(video).items() if name != "video_id"}
    return VideoRegions(video_id=video.video_id, **fields)
