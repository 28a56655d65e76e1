"""The learning rate that the public trainer really applies, epoch by epoch."""

from __future__ import annotations

import json

import pytest

from regionvlp.training.optim import lr_at
from regionvlp.training.settings import OptimSettings

from .discovery import Case, cases
from .table import record

STEPS = 7  # of an epoch


@pytest.mark.parametrize("case", cases("demovlp", "public_lr_schedule"))
def test_public_lr_schedule(case: Case) -> None:
    for run in json.loads(case.path(".json").read_text()):
        settings = OptimSettings(
            schedule="public",
            lr=run["first_epoch_lr"],
            lr_after_first_epoch=run["learning_rate1"],
            milestones=tuple(run["schedule"]),
        )
        for epoch, rate in enumerate(run["lr_used_in_epoch"]):
            for step in (0, STEPS - 1):
                found = lr_at(epoch * STEPS + step, settings, STEPS, 10**6)
                record(abs(found - rate), 1e-9 * rate)
                assert found == pytest.approx(rate, rel=1e-9), (run["schedule"], epoch)
