"""Damages media files at random and reads each through the decoding processes: every end must have a name.

As a script, over real files::

    python -m tests.video.fuzz FOLDER [--count 2000] [--seed 0] [--workers 2]

prints the number of files per reason, those that ended as no damaged file may, and the memory of this process as the
run goes on. In: a seed and a folder. Out: :class:`Outcome`.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from regionvlp.errors import VideoError
from regionvlp.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, DecodedVideo, DecodePool

# What a file that can be read from its disk must not end as, whatever is in it.
WRONG = frozenset({"internal", "io-error", "missing-file", "timeout"})
_MOST_BYTES = 3 << 20
_PAGE = resource.getpagesize()


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        reasons: files per reason; ``read`` for those that gave frames.
        wrong: reason and message of those that ended in one of :data:`WRONG`, with what was done to which file.
        resident: megabytes of this process, now and then.
        slowest: seconds that the slowest file took.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    slowest: float = 0.0


def mutated(data: bytes, others: Sequence[bytes], rng: np.random.Generator) -> tuple[bytes, str]:
    """One damaged copy of a file, and what was done to it."""
    out = bytearray(data)
    size = len(out)
    first, second = sorted(int(place) for place in rng.integers(0, size + 1, 2))
    match kind := str(rng.choice(["bits", "header", "cut", "zero", "noise", "repeat", "drop", "splice", "swap"])):
        case "bits":
            for place in rng.integers(0, size, int(rng.integers(1, 200))):
                out[place] ^= 1 << int(rng.integers(8))
        case "header":
            for place in rng.integers(0, min(size, 2048), int(rng.integers(1, 12))):
                out[place] = int(rng.integers(256))
        case "cut":
            del out[first:]
        case "zero":
            out[first:second] = bytes(second - first)
        case "noise":
            out[first:second] = rng.bytes(second - first)
        case "repeat":
            out[second:second] = out[first:second]
        case "drop":
            del out[first:second]
        case "splice":
            out[first:] = others[int(rng.integers(len(others)))][first:]
        case "swap":
            out = out[second:] + out[first:second] + out[:first]
    return bytes(out), f"{kind} {first}..{second}"


def copies(sources: Sequence[Path], count: int, seed: int, folder: Path) -> Iterator[tuple[Path, str]]:
    """Writes damaged copies one after the other, and says of each what it is."""
    rng = np.random.default_rng(seed)
    contents = [path.read_bytes() for path in sources]
    for number in range(count):
        place = int(rng.integers(len(sources)))
        data, what = mutated(contents[place], contents, rng)
        path = folder / f"{number}{sources[place].suffix}"
        path.write_bytes(data)
        yield path, f"{number}: {sources[place].name}, {what}"


def fuzz(sources: Sequence[Path], count: int, seed: int, *, workers: int = 2, time_limit: float = 60.0) -> Outcome:
    """Reads ``count`` damaged copies of ``sources``."""
    outcome, ahead = Outcome(), deque[tuple[Path, str, Future[DecodedVideo]]]()

    def settle() -> None:
        path, what, future = ahead.popleft()
        started = time.monotonic()
        try:
            future.result()
            outcome.reasons["read"] += 1
        except VideoError as error:
            outcome.reasons[error.reason] += 1
            if error.reason in WRONG or (error.transient and error.reason != "decoder-crashed"):
                outcome.wrong.append(f"{what}: {error.reason}: {error.message}")
        outcome.slowest = max(outcome.slowest, time.monotonic() - started)
        path.unlink()

    with tempfile.TemporaryDirectory() as folder, DecodePool(workers, time_limit=time_limit) as pool:
        for path, what in copies(sources, count, seed, Path(folder)):
            ahead.append((path, what, pool.submit(path, 8)))
            if len(ahead) > 2 * workers:
                settle()
            if sum(outcome.reasons.values()) % 50 == 1:
                outcome.resident.append(resident())
        while ahead:
            settle()
    outcome.resident.append(resident())
    return outcome


def resident() -> float:
    """Megabytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


def media(folder: Path) -> list[Path]:
    """The files of a folder that are worth damaging."""
    suffixes = VIDEO_SUFFIXES | IMAGE_SUFFIXES
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and 0 < p.stat().st_size < _MOST_BYTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    outcome = fuzz(media(options.folder), options.count, options.seed, workers=options.workers)
    for line in outcome.wrong:
        print("WRONG", line)  # noqa: T201
    print(dict(outcome.reasons.most_common()))  # noqa: T201
    print(f"slowest {outcome.slowest:.1f} s; MB {[round(one) for one in outcome.resident]}")  # noqa: T201


if __name__ == "__main__":
    main()
