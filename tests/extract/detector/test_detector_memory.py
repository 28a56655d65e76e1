"""Running out of memory halves what runs at once, and chunk sizes fit their budget."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from regionvlp.extract.detector import FAMILIES, RegionDetector
from regionvlp.extract.detector.execution import SMALLEST_CHUNK, is_out_of_memory, regions_at_once

Picture = Callable[..., NDArray[np.uint8]]
ERRORS = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried..."),
    MemoryError(),
]


def limit(detector: RegionDetector, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Makes the backbone raise for batches above ``most``; returns the list of batch sizes that were tried."""
    tried: list[int] = []
    real = detector.network.res4

    def res4(images: torch.Tensor) -> torch.Tensor:
        tried.append(len(images))
        if len(images) > most:
            raise error
        return real(images)

    monkeypatch.setattr(detector.network, "res4", res4)
    return tried


@pytest.mark.parametrize("error", ERRORS)
def test_the_batch_is_halved_until_it_fits(
    error: Exception,
    tiny: RegionDetector,
    picture: Picture,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    frames = [picture(seed) for seed in range(7)]
    expected = tiny.detect(frames)
    tried = limit(tiny, monkeypatch, 2, error)
    with caplog.at_level(logging.WARNING):
        found = tiny.detect(frames)
    assert tried == [7, 4, 2, 2, 2, 1]
    assert (tiny.max_batch, "out of memory" in caplog.text) == (2, True)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)


def test_one_frame_that_never_fits_is_an_error(
    tiny: RegionDetector, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(tiny, monkeypatch, 0, ERRORS[0])
    with pytest.raises(torch.cuda.OutOfMemoryError):
        tiny.detect([picture(), picture(1)])
    assert (tiny.max_batch, tiny.chunk) == (1, SMALLEST_CHUNK)


def test_other_errors_are_not_tried_again(
    tiny: RegionDetector, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limit(tiny, monkeypatch, 0, RuntimeError("device lost"))
    with pytest.raises(RuntimeError, match="device lost"):
        tiny.detect([picture(), picture(1)])
    assert tried == [2]
    assert not is_out_of_memory(ValueError("out of memory"))


def test_chunks_fit_the_budget() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    caffe = FAMILIES["caffe"]
    assert regions_at_once(caffe, torch.float32, cpu) == 64
    assert regions_at_once(caffe, torch.bfloat16, cpu) == 128
    assert regions_at_once(caffe, torch.float16, cuda) == 256
    assert regions_at_once(FAMILIES["d2"], torch.float32, cpu) % 32 == 0
