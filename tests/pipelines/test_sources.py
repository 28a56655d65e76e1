"""Several sources in one run: turns and mixtures, subsets that nest, clips held out, and what an epoch sees of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regionvlp.config import read_yaml
from regionvlp.data.mixing import MixedPairs
from regionvlp.errors import ConfigError, InputError
from regionvlp.training.config import RunConfig, run_config
from regionvlp.training.distributed import World
from regionvlp.training.logbook import read_log
from regionvlp.training.preparing import Prepared, prepare
from regionvlp.training.run import describe, train
from regionvlp.training.turns import loaders_of

Edit = Callable[..., Path]


def config_of(recipe: Edit, world: Path, *extra: dict[str, Any], **changes: Any) -> RunConfig:
    """Sources over the clips to learn from (24) and those to test on (8), each with more settings."""
    values = read_yaml(recipe())
    names = ("train", "test")
    values["data"]["sources"] = [
        {"captions": str(world / f"videos/{name}.jsonl"), "shards": str(world / "shards"), **more}
        for name, more in zip(names, extra, strict=False)
    ]
    return run_config(values, {"eval": {"source": None}}, changes)


def ids(prepared: Prepared) -> list[set[str]]:
    return [set(data.clips.ids) for data in prepared.datasets]


def test_sources_take_turns_with_batches_of_their_own(recipe: Edit, world: Path, tmp_path: Path) -> None:
    config = config_of(recipe, world, {"batch_size": 6}, {"batch_size": 4, "frames": 1})
    plan = describe(prepare(config))
    assert plan["plan"] == [
        "an epoch is 8 steps and sees 24 pairs of train (1.00 of its 24), 16 pairs of test (2.00 of its 8)"
    ]
    train(config, tmp_path / "run")
    log = read_log(tmp_path / "run")
    assert {row["step"] % 2 for row in log if "train/loss" in row} == {1}
    assert {row["step"] % 2 for row in log if "test/loss" in row} == {0}
    shortest = config_of(recipe, world, {}, {}, train={"epoch": "shortest", "batch_size": 8})
    assert describe(prepare(shortest))["plan"] == [
        "an epoch is 2 steps and sees 8 pairs of train (0.33 of its 24), 8 pairs of test (1.00 of its 8)"
    ]


def test_a_mixed_batch_is_what_its_sources_give(recipe: Edit, world: Path, tmp_path: Path) -> None:
    config = config_of(recipe, world, {"weight": 2}, {"weight": 1}, train={"turns": "mix", "batch_size": 6})
    prepared = prepare(config)
    (loader,) = loaders_of(prepared.datasets, prepared.config, World())
    (batch,) = next(loader.read(7))  # of a pass of six batches over the first source, of four over the second
    assert len(batch["video_id"]) == 6
    held = [ids(prepared)[0] >= {name} for name in batch["video_id"]]
    assert sum(held) == 4
    epoch, samples, _ = loader.sampler.batch(7)
    assert epoch == 7
    for place, sample in enumerate(samples.tolist()):
        first = sample < 24
        alone = prepared.datasets[0 if first else 1].read([sample - (0 if first else 24)], 1)
        assert alone["caption"] == [batch["caption"][place]]
        width = alone["features"].shape[2]
        assert torch.equal(alone["features"][0], batch["features"][place, :, :width])
        assert int(batch["clip_number"][place]) == int(alone["clip_number"][0]) + (0 if first else 24)
        length = int(alone["attention_mask"].sum())
        assert torch.equal(alone["input_ids"][0, :length], batch["input_ids"][place, :length])
        assert int(batch["text_hash"][place]) == int(alone["text_hash"][0])
    assert describe(prepared)["plan"] == [
        "an epoch is 6 steps and sees 24 pairs of train (1.00 of its 24), 12 pairs of test (1.50 of its 8)"
    ]
    train(config, tmp_path / "run")
    assert max(row["step"] for row in read_log(tmp_path / "run")) == 12


def test_what_cannot_be_read_of_a_mixture_is_named_by_its_place(recipe: Edit, world: Path) -> None:
    from regionvlp.errors import UnreadableItemsError

    prepared = prepare(config_of(recipe, world, {}, {}, train={"turns": "mix"}))
    mixed = MixedPairs(prepared.datasets, [6, 2])
    of_second = prepared.datasets[1].clips.read_batch

    def broken(numbers: Any, *rest: Any) -> Any:
        bad = {at: "it is damaged" for at, number in enumerate(np.asarray(numbers)) if number == 3}
        if bad:
            raise UnreadableItemsError(bad)
        return of_second(numbers, *rest)

    prepared.datasets[1].clips.read_batch = broken  # type: ignore[method-assign]
    order = [prepared.datasets[1].video_of.tolist().index(3)] if not prepared.datasets[1].per_video else [3]
    with pytest.raises(UnreadableItemsError) as caught:
        mixed.read([0, 24 + order[0], 5, 25], 0)
    assert caught.value.reasons == {1: "it is damaged"}


def test_subsets_nest_and_go_by_clip(recipe: Edit, world: Path) -> None:
    parts = [ids(prepare(config_of(recipe, world, {"subset": share})))[0] for share in (0.25, 0.5, 0.75, 1.0)]
    assert [len(part) for part in parts] == [6, 12, 18, 24]
    assert parts[0] < parts[1] < parts[2] < parts[3]
    again = ids(prepare(config_of(recipe, world, {"subset": 0.25}, train={"seed": 5})))[0]
    assert again == parts[0]  # the same in every run


def test_what_is_held_out_is_trained_on_by_no_source(recipe: Edit, world: Path, tmp_path: Path) -> None:
    twice = [{"held_out": 0.25, "subset": 0.5}, {"captions": str(world / "videos/train.jsonl")}]
    config = config_of(recipe, world, *twice)
    prepared = prepare(config)
    assert prepared.held_out is not None
    held = set(prepared.held_out.clips.ids)
    assert len(held) == 6
    first, second = ids(prepared)
    assert (len(first), len(second)) == (9, 18)
    assert not held & (first | second)
    assert first < second
    train(config, tmp_path / "run")
    assert any("eval/t2v/R1" in row for row in read_log(tmp_path / "run"))


@pytest.mark.parametrize(
    ("extra", "train_settings", "message"),
    [
        ([{"weight": 1}, {}], {}, r"data\.sources\.0\.weight means nothing with train\.turns=alternate"),
        ([{}, {"batch_size": 4}], {"turns": "mix"}, r"sources\.1\.batch_size means nothing with train\.turns=mix"),
        ([{"frames": 1}, {}], {"turns": "mix"}, "clips of 1 and 2 frames into one batch"),
        ([{"held_out": 0.5}, {"held_out": 0.5}], {}, r"held_out and data\.sources\.1\.held_out are set"),
        ([{}, {"weight": 0.001}], {"turns": "mix"}, r"data\.sources\.1 gives no sample to a mixed batch of 8"),
        ([{"batch_size": 1}], {}, "a batch of 1 in 1 parts: a contrast of one pair learns nothing"),
    ],
)
def test_settings_that_mean_nothing_are_errors(
    recipe: Edit, world: Path, extra: list[dict[str, Any]], train_settings: dict[str, Any], message: str
) -> None:
    config = config_of(recipe, world, *extra, train=train_settings)
    with pytest.raises(ConfigError, match=message):
        describe(prepare(config))


def test_shares_that_leave_nothing_are_errors(recipe: Edit, world: Path) -> None:
    for share, message in ((0.01, "is none of them"), (0.99, "is all of them")):
        with pytest.raises(InputError, match=message):
            prepare(config_of(recipe, world, {"held_out": share}))
    with pytest.raises(InputError, match="8 samples, fewer than one batch of 9"):
        describe(prepare(config_of(recipe, world, {}, {"batch_size": 9})))
