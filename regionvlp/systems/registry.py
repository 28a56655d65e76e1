"""The systems by name. Imports no torch until one is built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regionvlp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from regionvlp.systems.base import System

# name -> the module whose function ``build`` makes it
SYSTEMS = {"demovlp": "regionvlp.systems.demovlp", "frozen": "regionvlp.systems.frozen"}


def build_system(name: str, model: Any, loss: Any, *, vocab_size: int | None = None, pretrained: bool = True) -> System:
    """Builds a system by name.

    Args:
        name: a key of :data:`SYSTEMS`.
        model, loss: its sections of the config.
        vocab_size: of the tokenizer, where the model's settings leave it open.
        pretrained: whether to read the weights that ``model`` names; False where a checkpoint follows anyway.

    Raises:
        ConfigError: no such system. InputError, WeightsError: the weights to start from are missing or do not fit.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"no system '{name}'", nearest(name, SYSTEMS) or f"systems: {', '.join(SYSTEMS)}")
    system: System = importlib.import_module(SYSTEMS[name]).build(
        model, loss, vocab_size=vocab_size, pretrained=pretrained
    )
    return system
