"""Finds the golden cases: which directory, which files, which kind each one is.

The cases lie under the directory that ``REGIONVLP_FIXTURES`` names, else in ``shared/fixtures`` beside the checkout,
else in ``tests/fixtures``; one sub-folder per part of the project. A case is all the files that share a stem (the name
up to its first dot), and its kind is the longest of the folder's prefixes that the stem begins with. Cases are found,
not listed: a new file of a known kind becomes a test by lying there, and a file of no known kind fails the run.

To add a kind: write its test with ``@pytest.mark.parametrize("case", cases(folder, prefix))``. To add a folder: list
all kinds of its README in :data:`KINDS`, whether or not their tests exist yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

KINDS: dict[str, tuple[str, ...]] = {
    "detector": ("caffe_", "maxnms_", "d2_"),
    "demovlp": (
        *("rwa_valid_preset", "rwa_", "paper_rwa", "alt_filip", "alt_taco_token"),
        *("enc_full", "enc_", "model_step", "legacy_checkpoint", "temporal_inflation", "butd_head"),
        *("retrieval_eval", "multiple_choice", "metric_", "public_lr_schedule", "region_files", "frame_sampling"),
    ),
    "end_to_end": (
        *("stformer_zero_init", "stformer_", "timesformer_", "cls_attention", "temporal_inflation", "stride_average"),
        *("frozen_ckpt_", "frozen_base", "frozen_checkpoint_layout", "losses", "metrics", "frame_sampling", "cost"),
        *("block_masking", "formulas", "miles_step_", "clip_multiframe", "gae_clip"),
    ),
}
# Kinds of systems that do not exist yet: their cases are known, and not collected.
WAITING = {("end_to_end", kind) for kind in ("block_masking", "formulas", "miles_step_", "clip_multiframe", "gae_clip")}
TESTED: set[tuple[str, str]] = set()  # the kinds that some test has asked for
NOT_CASES = {".md", ".py", ".txt"}


@dataclass(frozen=True)
class Case:
    """The files of one case: ``folder``/``stem``.*"""

    folder: Path
    stem: str

    def path(self, suffix: str) -> Path:
        """The case's file with this suffix, for example ``.weights.safetensors``; it may not exist."""
        return self.folder / (self.stem + suffix)


def root() -> Path:
    """The directory of all golden cases; it may not exist."""
    named = os.environ.get("REGIONVLP_FIXTURES")
    if named:
        return Path(named)
    beside = REPOSITORY.parent / "shared" / "fixtures"
    return beside if beside.is_dir() else REPOSITORY / "tests" / "fixtures"


def kind_of(folder: str, stem: str) -> str | None:
    """The longest prefix of the folder's kinds that fits, or None."""
    return max((prefix for prefix in KINDS[folder] if stem.startswith(prefix)), key=len, default=None)


def stems(folder: str) -> list[str]:
    """The stems of all cases of a folder, sorted; none where the folder is absent."""
    where = root() / folder
    if not where.is_dir():
        return []
    return sorted({p.name.split(".")[0] for p in where.iterdir() if p.is_file() and p.suffix not in NOT_CASES})


def cases(folder: str, kind: str, slow: Callable[[Case], bool] = lambda case: False) -> list[Any]:
    """The cases of one kind as pytest parameters whose ids are the stems; ``slow`` says which get that mark."""
    TESTED.add((folder, kind))
    found = [Case(root() / folder, stem) for stem in stems(folder) if kind_of(folder, stem) == kind]
    return [pytest.param(case, id=case.stem, marks=[pytest.mark.slow] if slow(case) else []) for case in found]
