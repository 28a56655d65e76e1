"""Indexing killed with SIGKILL at random moments of every stage, and gone on with: the index is the same."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regionvlp.pipelines.bench.fork_server import ForkServer
from search.killing import IMPORTS, PHASES, WAYS, Arena

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def arena(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_clip: Callable[..., Path], sentences: Path
) -> Iterator[Arena]:
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    with ForkServer(IMPORTS) as server:
        yield Arena(tmp_path / "arena", server, make_clip, ["labels", f"labels:{sentences}"])


def test_a_handful(arena: Arena) -> None:
    rng = random.Random(1)
    attacks = [arena.attack(way, rng) for way in WAYS]
    assert [(attack.way, attack.kills, attack.faults) for attack in attacks if attack.faults] == []
    assert sum(len(attack.kills) for attack in attacks) >= 3


@pytest.mark.slow
def test_two_hundred(arena: Arena) -> None:
    rng = random.Random(2)
    kills: Counter[str] = Counter()
    for way in itertools.cycle(WAYS):
        attack = arena.attack(way, rng)
        assert attack.faults == [], attack
        kills.update(attack.kills)
        if kills.total() >= 200:
            break
    assert set(kills) == set(PHASES)
