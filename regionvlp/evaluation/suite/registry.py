"""The benchmarks by name. Imports none until it is asked for."""

from __future__ import annotations

import importlib

from regionvlp.errors import InputError, nearest
from regionvlp.evaluation.suite.base import Benchmark

# name -> the module whose ``benchmark`` it is
BENCHMARKS = {"csv": "regionvlp.evaluation.suite.csv", "msrvtt": "regionvlp.evaluation.suite.msrvtt"}


def benchmark_named(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        InputError: there is none.
    """
    if name not in BENCHMARKS:
        hint = nearest(name, BENCHMARKS) or f"benchmarks: {', '.join(sorted(BENCHMARKS))}"
        raise InputError(f"no benchmark '{name}'", hint)
    found: Benchmark = importlib.import_module(BENCHMARKS[name]).benchmark
    return found
