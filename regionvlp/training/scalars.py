"""What the steps since the last log returned, left on the device until someone looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from regionvlp.errors import RegionVLPError, SaidElsewhereError
from regionvlp.training.distributed import World


class NonFiniteLossError(RegionVLPError):
    """A loss or gradient became NaN or infinite; the weights in memory are spoilt, the checkpoints are not."""


class StepScalars:
    """Collects scalars without making the host wait for the GPU at every step.

    They are copied in one go when the log or a checkpoint needs them, averaged over the processes, and looked through
    for the first step with a loss or gradient norm that is not finite.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._on_device: list[tuple[int, dict[str, torch.Tensor]]] = []
        self._settled: list[tuple[int, dict[str, float]]] = []

    def add(self, step: int, scalars: Mapping[str, torch.Tensor]) -> None:
        """Notes what optimizer step number ``step`` returned: tensors of one element."""
        self._on_device.append((step, dict(scalars)))

    def settle(self) -> None:
        """Copies the values to the host and averages them over the processes, which must all call this.

        Raises:
            NonFiniteLossError: naming the first step that went wrong and all its values.
        """
        if not self._on_device:
            return
        tensors = [value.float().reshape(()) for _, scalars in self._on_device for value in scalars.values()]
        values = iter(self._world.mean(torch.stack(tensors).tolist()))
        for step, scalars in self._on_device:
            settled = {name: next(values) for name in scalars}
            self._check_finite(step, settled)
            self._settled.append((step, settled))
        self._on_device = []

    def take(self) -> dict[str, float]:
        """Returns the mean of each scalar over the steps that returned it, and forgets them; see :meth:`settle`."""
        self.settle()
        columns: dict[str, list[float]] = {}
        for _, scalars in self._settled:
            for name, value in scalars.items():
                columns.setdefault(name, []).append(value)
        self._settled = []
        return {name: math.fsum(column) / len(column) for name, column in columns.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns what has not been logged yet, so that a resumed run logs the same means; see :meth:`settle`."""
        self.settle()
        return {"settled": list(self._settled)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up where :meth:`state_dict` left off."""
        self._on_device = []
        self._settled = [(step, dict(scalars)) for step, scalars in state["settled"]]

    def _check_finite(self, step: int, scalars: Mapping[str, float]) -> None:
        watched = [name for name in scalars if name.endswith(("loss", "grad_norm"))]
        if all(math.isfinite(scalars[name]) for name in watched):
            return
        values = ", ".join(f"{name}={scalars[name]:.6g}" for name in watched)
        error = NonFiniteLossError(
            f"step {step}: the loss is not finite: {values}",
            "lower optim.lr, set optim.clip_norm=1, or try train.precision=float32; the checkpoints before are intact",
        )
        raise error if self._world.is_main else SaidElsewhereError(error.exit_code)
