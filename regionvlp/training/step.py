"""One batch's scalars and gradients: device, precision, parts, processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from regionvlp.devices import autocast_dtype
from regionvlp.systems.base import Trainable
from regionvlp.training.distributed import World
from regionvlp.training.loaders import Batch
from regionvlp.training.settings import TrainSettings


class Gradients:
    """Computes gradients of ``system``, which is on its device already.

    Args:
        system: its ``forward(batch)`` returns scalars by name; ``inputs`` names what it reads of a batch, and only
            that is moved to the device and passed on.
        train: precision and compilation.
        world: with several processes gradients are averaged over them.
    """

    def __init__(self, system: Trainable, train: TrainSettings, world: World) -> None:
        self._keys = system.inputs
        self._device = world.device
        self._dtype = autocast_dtype(train.precision, world.device)
        if train.compile:
            system.compile()  # in place, so that the weights keep their names
        self._model: nn.Module = system
        if world.size > 1:
            on_gpu = world.device.type == "cuda"
            self._model = DistributedDataParallel(system, device_ids=[world.device] if on_gpu else None)

    def add(self, parts: Sequence[Batch]) -> dict[str, torch.Tensor]:
        """Adds the gradient of the parts' mean loss to the parameters; returns the scalars' means, on the device.

        Everything ending in ``_loss`` is summed to ``loss``, the first of the scalars returned.
        """
        self._model.train()
        sums: dict[str, torch.Tensor] = {}
        for number, part in enumerate(parts, start=1):
            with self._apart(number < len(parts)):
                scalars = self._forward(part)
                (scalars["loss"] / len(parts)).backward()  # type: ignore[no-untyped-call]
            for name, value in scalars.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return {name: value / len(parts) for name, value in sums.items()}

    def _apart(self, more_to_come: bool) -> AbstractContextManager[None]:
        """Gradients travel between processes once, after the last part."""
        if isinstance(self._model, DistributedDataParallel) and more_to_come:
            return cast("AbstractContextManager[None]", self._model.no_sync())
        return nullcontext()

    def _forward(self, part: Batch) -> dict[str, torch.Tensor]:
        missing = [key for key in self._keys if key not in part]
        assert not missing, f"the batch lacks {missing}, which the system reads; it has {sorted(part)}"
        batch = {key: _to_device(part[key], self._device) for key in self._keys}
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            scalars: Mapping[str, torch.Tensor] = self._model(batch)
        losses = [value.float() for name, value in scalars.items() if name.endswith("_loss")]
        assert losses, f"the system returned nothing ending in '_loss': {sorted(scalars)}"
        return {"loss": torch.stack(losses).sum(), **scalars}


def _to_device(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
