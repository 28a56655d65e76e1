"""``regionvlp bench rwa``: the JSON contract, and what it counts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from regionvlp.pipelines.bench import rwa_costs as bench_rwa
from regionvlp.pipelines.bench.rwa_costs import FORMS, Size
from regionvlp.pipelines.cli import run

RATIOS = {f"lean_{what}{against}" for what in ("speed", "memory") for against in ("", "_einsum", "_pretrain_einsum")}
COSTS = {"expanded", "einsum", "lean", "einsum_pretrain", "lean_pretrain"}


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def check(path: Path) -> dict[str, float]:
    assert run(["bench", "rwa", "--quick", "--device", "cpu", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert set(result) == {"device", "rows", "ratios"}
    assert set(result["ratios"]) == RATIOS
    assert all(set(row) == {"name", "value", "unit"} for row in result["rows"])
    values = {row["name"]: row["value"] for row in result["rows"]}
    assert len(values) == len(result["rows"])
    assert {*COSTS, *(f"{name}_peak_memory" for name in COSTS), "ranking_32", "ranking_peak_memory"} <= set(values)
    assert all(math.isfinite(value) for value in [*values.values(), *result["ratios"].values()])
    return values


def test_bench_rwa(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], threads: None
) -> None:
    def here(work: Callable[[], Any]) -> Any:
        return work()

    monkeypatch.setattr(bench_rwa, "_apart", here)
    check(tmp_path / "bench.json")
    assert "lean_speed_einsum" in capsys.readouterr().out


@pytest.mark.slow
def test_in_fresh_processes_memory_is_that_of_the_work(tmp_path: Path) -> None:
    values = check(tmp_path / "bench.json")
    assert values["lean_peak_memory"] < values["einsum_peak_memory"] < values["expanded_peak_memory"]


def test_the_products_are_those_that_an_operator_counter_sees() -> None:
    size = Size(2, 20, 12, 24)
    video, text = bench_rwa._sides(size, torch.device("cpu"))

    def product(target: torch.Size, a: torch.Size, b: torch.Size, **_: Any) -> int:
        return 2 * math.prod(a) * b[-1]

    in_place = {torch.ops.aten.addmm_: product, torch.ops.aten.baddbmm_: product}  # the counter knows them not
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        scores = FORMS["lean"](video, text, bench_rwa.SETTINGS)
        (scores.v2l + scores.l2v).sum().backward()
    grams = 2 * size.pairs * size.width * (size.regions**2 + size.words**2)  # made twice, and pulled back
    assert counter.get_total_flops() == size.flops() + 3 * grams
