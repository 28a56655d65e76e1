"""Damaged weights files by the thousand: each is read, or refused in one line; none hangs or takes memory."""

from __future__ import annotations

import argparse
import io
import pickle
import resource
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save

from regionvlp.errors import WeightsError
from regionvlp.weights.reading import read_tensors

SECONDS = 20  # that a file of a few kilobytes may take on a busy machine
MEGABYTES = 1500


def torch_file(as_zip: bool) -> bytes:
    state = {f"block.{number}.weight": torch.randn(3, number + 1) for number in range(8)}
    content = {"state_dict": state, "epoch": 3, "best": np.float64(0.5), "lr": [1e-5, {"a": (1, 2)}]}
    content["config"] = argparse.Namespace(path="exps/a", steps=[1, 2])
    memory = io.BytesIO()
    torch.save(content, memory, _use_new_zipfile_serialization=as_zip)
    return memory.getvalue()


def array_file(protocol: int) -> bytes:
    arrays = {f"block.{number}.weight": np.random.default_rng(number).normal(size=(2, 3)) for number in range(6)}
    return pickle.dumps({"model": arrays, "note": "text", "seen": [np.int64(4), {1, 2}, (b"3",)]}, protocol=protocol)


CONTAINERS = {
    "zip": lambda: torch_file(as_zip=True),
    "legacy": lambda: torch_file(as_zip=False),
    "safetensors": lambda: save({"a": torch.randn(4, 4), "b": torch.arange(5)}),
    "arrays": lambda: array_file(4),
    "old arrays": lambda: array_file(0),
}


def damaged(whole: bytes, random: np.random.Generator) -> bytes:
    """One of the ways in which files go bad, or are made to."""
    content: NDArray[np.uint8] = np.frombuffer(whole, np.uint8).copy()
    place, length = int(random.integers(len(content))), int(random.integers(1, 40))
    way = int(random.integers(6))
    if way == 0:
        return content[:place].tobytes()
    if way == 1:
        content[place : place + length] = 0
    elif way == 2:
        content[place : place + length] = random.integers(0, 256, len(content[place : place + length]))
    elif way == 3:
        piece = content[(start := int(random.integers(len(content)))) : start + length]
        content = np.concatenate([content[:place], piece, content[place:]])
    elif way == 4:
        content = np.concatenate([content[:place], content[place + length :]])
    else:
        for spot in random.integers(len(content), size=int(random.integers(1, 8))):
            content[spot] ^= 1 << int(random.integers(8))
    return content.tobytes()


@pytest.fixture
def no_hang() -> Iterator[None]:
    def over(_: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"a file took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, over)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def attempt(path: Path) -> WeightsError | None:
    """How reading the file ended; anything but tensors and a refusal fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one of torch's would be a second line
        try:
            tensors = read_tensors(path, foreign=True)
        except WeightsError as error:
            return error
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    return None


def outcomes(container: str, count: int, path: Path) -> tuple[int, int]:
    """How many of ``count`` damaged files were read and refused."""
    whole = CONTAINERS[container]()
    path.write_bytes(whole)
    assert read_tensors(path, foreign=True)
    random = np.random.default_rng(list(container.encode()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = refused = 0
    for _ in range(count):
        path.write_bytes(damaged(whole, random))
        signal.alarm(SECONDS)
        error = attempt(path)
        signal.alarm(0)
        if error is None:
            read += 1
        else:
            refused += 1
            assert "\n" not in str(error)
            assert len(str(error)) < 600
            assert error.hint
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1000
    return read, refused


@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("container", CONTAINERS)
def test_damaged_weights_are_read_or_refused_in_one_line(container: str, tmp_path: Path) -> None:
    read, refused = outcomes(container, 40, tmp_path / "weights.bin")
    assert refused > read


@pytest.mark.slow
@pytest.mark.usefixtures("no_hang")
@pytest.mark.parametrize("container", CONTAINERS)
def test_two_thousand_damaged_weights(container: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read, refused = outcomes(container, 400, tmp_path / "weights.bin")
    with capsys.disabled():
        print(f" {container}: {read} read, {refused} refused")  # noqa: T201
    assert refused
