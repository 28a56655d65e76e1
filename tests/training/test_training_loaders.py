"""The order of samples: nothing lost or doubled, the same for any number of processes, exact after a resume."""

from __future__ import annotations

import itertools
import math
import os
import random
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tiny_run import TinyData

from regionvlp.errors import ConfigError, InputError
from regionvlp.training.distributed import World
from regionvlp.training.loaders import Loader, RoundRobin
from regionvlp.training.sampler import BatchSampler, EpochSampler, MixSampler, shares_of
from regionvlp.training.settings import TrainSettings


def batches(sampler: BatchSampler, epoch: int, first: int = 0, last: int | None = None, parts: int = 1) -> Any:
    """The requests of some steps of a pass, as lists."""
    last = sampler.steps if last is None else last
    sampler.seek(epoch * sampler.steps + first)
    found = list(itertools.islice(sampler, (last - first) * parts))
    assert {request.epoch for request in found} <= {epoch}
    return [list(request.samples) for request in found]


@pytest.mark.parametrize(("size", "batch", "parts", "processes"), [(50, 12, 1, 1), (50, 12, 2, 3), (24, 12, 1, 4)])
def test_an_epoch_has_every_sample_once_but_a_dropped_tail(size: int, batch: int, parts: int, processes: int) -> None:
    samplers = [EpochSampler(size, batch, 7, rank, processes, parts) for rank in range(processes)]
    tails = []
    for epoch in range(3):
        seen = [index for sampler in samplers for part in batches(sampler, epoch, parts=parts) for index in part]
        assert len(seen) == len(set(seen)) == size // batch * batch
        tails.append(frozenset(range(size)) - set(seen))
    assert len(set(tails)) == (1 if size % batch == 0 else 3)


def test_any_number_of_processes_and_parts_sees_the_same_global_batches() -> None:
    alone = [set(batch) for batch in batches(EpochSampler(50, 12, 7), epoch=2)]
    for processes, parts in ((2, 1), (3, 2), (1, 4), (12, 1)):
        shares = [
            batches(EpochSampler(50, 12, 7, rank, processes, parts), epoch=2, parts=parts) for rank in range(processes)
        ]
        joined = [
            {index for share in shares for part in share[step * parts : (step + 1) * parts] for index in part}
            for step in range(4)
        ]
        assert joined == alone


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    one, same, other = EpochSampler(50, 10, 7), EpochSampler(50, 10, 7), EpochSampler(50, 10, 8)
    assert batches(one, 3) == batches(same, 3)
    assert batches(one, 3) != batches(one, 4)
    assert batches(one, 3) != batches(other, 3)
    assert batches(one, 3, first=2, last=4) == batches(same, 3)[2:4]


def test_too_little_data_and_odd_batches_are_errors() -> None:
    with pytest.raises(InputError, match="9 samples, fewer than one batch of 10"):
        EpochSampler(9, 10, 0)
    with pytest.raises(ConfigError, match="10 does not divide among 3 processes"):
        EpochSampler(90, 10, 0, 0, 3)


def round_robin(*sizes: int, workers: int = 0, samples: int | None = None, **settings: Any) -> RoundRobin:
    train = TrainSettings(batch_size=4, workers=workers, **settings)
    loaders = [Loader(TinyData(size), train, World(), f"set{n}", n) for n, size in enumerate(sizes)]
    return RoundRobin(loaders, samples, train.epoch)


def take(stream: RoundRobin, steps: int) -> list[tuple[str, tuple[str, ...], list[float]]]:
    found = []
    for _ in range(steps):
        loader, parts = stream.next()
        names = tuple(name for part in parts for name in part["name"])
        found.append((loader.name, names, torch.cat([part["x"].flatten() for part in parts]).tolist()))
    return found


@pytest.mark.parametrize(("epoch", "rounds"), [("longest", 7), ("shortest", 3)])
def test_datasets_take_turns_and_shorter_ones_begin_again(epoch: str, rounds: int) -> None:
    stream = round_robin(22, 13, 30, epoch=epoch)
    assert stream.steps_per_epoch == 3 * rounds
    steps = take(stream, 42)
    assert [name for name, _, _ in steps] == ["set0", "set1", "set2"] * 14
    for name, batches_a_pass in (("set0", 5), ("set1", 3), ("set2", 7)):
        mine = [clips for turn, clips, _ in steps if turn == name]
        passes = [sum(mine[at : at + batches_a_pass], ()) for at in range(0, 14, batches_a_pass)]
        assert all(len(set(one)) == len(one) for one in passes)
        assert passes[0] != passes[1]
    # Equal datasets at different places are shuffled differently.
    twins = take(round_robin(22, 22), 2)
    assert twins[0][1] != twins[1][1]


def test_a_sample_budget_ends_the_epoch() -> None:
    assert round_robin(22, 13, samples=16).steps_per_epoch == 4
    assert round_robin(22, 13, samples=23).steps_per_epoch == 4
    assert round_robin(22, 13, samples=800).steps_per_epoch == 200
    with pytest.raises(ConfigError, match="use at least 8"):
        round_robin(22, 13, samples=7)


def mixed(
    rank: int = 0, processes: int = 1, parts: int = 1, epoch: Literal["longest", "shortest"] = "longest"
) -> MixSampler:
    return MixSampler([EpochSampler(50, 9, 7), EpochSampler(11, 3, 8)], epoch, rank, processes, parts)


def test_a_mixed_batch_has_of_each_what_its_weight_says_on_any_number_of_processes() -> None:
    assert mixed().steps == 5
    assert mixed(epoch="shortest").steps == 3
    whole = [request for request, _ in zip(mixed(), range(20), strict=False)]
    for request in whole:
        assert sum(sample < 50 for sample in request.samples) == 9
        assert len({*request.samples}) == 12
        of_first = [sample < 50 for sample in request.samples]
        assert all([sample < 50 for sample in spare] == of_first for spare in request.spares)
    second = [sample for request in whole for sample in request.samples if sample >= 50]
    assert all(len(set(second[at : at + 9])) == 9 for at in range(0, 54, 9))  # a pass of three batches
    for processes, parts in ((2, 1), (3, 2), (12, 1)):
        shares = [list(itertools.islice(mixed(rank, processes, parts), 20 * parts)) for rank in range(processes)]
        for step, request in enumerate(whole):
            pieces = [shares[rank][step * parts + part].samples for part in range(parts) for rank in range(processes)]
            assert sum(pieces, ()) == request.samples
            # The larger share is spread: no process is left with one source alone where it need not be.
            assert max(sum(sample < 50 for sample in piece) for piece in pieces) <= math.ceil(9 / len(pieces)) + 1


def test_shares_of_a_mixed_batch() -> None:
    assert shares_of(12, [50, 50]) == [6, 6]
    assert shares_of(10, [2, 1]) == [7, 3]
    assert sum(shares_of(128, [2_490_000, 3_310_000])) == 128
    with pytest.raises(ConfigError, match=r"data\.sources\.1 gives no sample to a mixed batch of 8"):
        shares_of(8, [1000, 1])


def test_a_dataset_may_have_its_own_batch_size() -> None:
    train = TrainSettings(batch_size=4, workers=0)
    loaders = [
        Loader(TinyData(22), train, World(), "images", 0, batch_size=8),
        Loader(TinyData(22), train, World(), "videos", 1),
    ]
    stream = RoundRobin(loaders)
    assert stream.steps_per_epoch == 10
    assert [len(names) for _, names, _ in take(stream, 4)] == [8, 4, 8, 4]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("done", [0, 1, 5, 6, 7, 12])
def test_the_stream_goes_on_exactly_from_its_state(done: int, parts: int) -> None:
    whole = take(round_robin(22, 13, accumulate=parts), 14)
    stopped = round_robin(22, 13, accumulate=parts)
    assert take(stopped, done) == whole[:done]
    resumed = round_robin(22, 13, accumulate=parts)
    resumed.load_state_dict(stopped.state_dict())
    assert take(resumed, 14 - done) == whole[done:]


def test_workers_do_not_change_the_samples() -> None:
    assert take(round_robin(22, workers=2), 7) == take(round_robin(22), 7)


def test_a_changed_dataset_does_not_resume() -> None:
    state = round_robin(22, 13).state_dict()
    with pytest.raises(InputError, match=r"13 of 'set1'.* then, .*14 of 'set1'"):
        round_robin(22, 14).load_state_dict(state)
    with pytest.raises(InputError, match=r"5 rounds an epoch then, .* 2 rounds an epoch now"):
        round_robin(22, 13, samples=16).load_state_dict(state)


def test_reading_leaves_the_callers_generators_alone() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    take(round_robin(22), 7)
    take(round_robin(22, workers=1), 7)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected


def test_a_sample_is_drawn_anew_in_each_epoch() -> None:
    stream = RoundRobin([Loader(TinyData(4), TrainSettings(batch_size=4, workers=0), World())])
    seen = []
    for _ in range(3):
        part = stream.next()[1][0]
        seen.append(float(part["x"][part["name"].index("clip2"), 0]))
    assert len(set(seen)) == 3


def test_workers_live_through_epochs_and_end_with_the_loader() -> None:
    class Data(TinyData):
        def read(self, samples: Sequence[int], epoch: int) -> dict[str, Any]:
            return {**super().read(samples, epoch), "process": os.getpid()}

    stream = RoundRobin([Loader(Data(12), TrainSettings(batch_size=4, workers=2), World())])
    seen = [{stream.next()[1][0]["process"] for _ in range(3)} for _ in range(3)]
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 2
    assert os.getpid() not in seen[0]
    stream.close()
    again = {stream.next()[1][0]["process"] for _ in range(3)}
    assert not again & seen[0]


def unreadable(bad: tuple[int, ...], share: float, workers: int = 0, size: int = 40, processes: int = 1) -> RoundRobin:
    train = TrainSettings(batch_size=8, workers=workers)
    return RoundRobin(
        [
            Loader(TinyData(size, bad=bad), train, World(rank=rank, size=processes), f"set{rank}", unreadable=share)
            for rank in range(processes)
        ]
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_what_cannot_be_read_is_named_and_another_takes_its_place(
    workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole, stream = unreadable((), 0), unreadable((3, 17), 0.1, workers)
    for _ in range(10):
        expected, (found,) = whole.next()[1][0]["name"], stream.next()[1]
        assert len(set(found["name"])) == 8
        assert not {"clip3", "clip17"} & set(found["name"])
        assert sum(one != other for one, other in zip(expected, found["name"], strict=True)) == sum(
            name in ("clip3", "clip17") for name in expected
        )
    assert stream.left_out == 2
    assert sorted(record.message for record in caplog.records) == [
        f"set0: left out, and another taken instead: clip{n} is damaged" for n in (17, 3)
    ]


def test_the_one_in_its_place_is_the_same_on_any_number_of_processes() -> None:
    one, two = unreadable((5,), 0.1), unreadable((5,), 0.1, processes=2)
    for _ in range(5):
        both = [two.next()[1][0]["name"] for _ in range(2)]
        assert [name for share in both for name in share] == one.next()[1][0]["name"]


def test_more_than_may_be_ends_the_run_and_one_never_does() -> None:
    assert take(unreadable((3,), 0.0), 5)
    stream = unreadable((3, 17, 20), 0.05)
    with pytest.raises(InputError, match=r"3 of the 40 samples of 'set0' cannot be read, more than data\.unreadable"):
        take(stream, 5)


def test_a_batch_of_nothing_readable_says_why() -> None:
    with pytest.raises(InputError, match="is damaged"):
        take(unreadable(tuple(range(40)), 1.0), 1)
