"""AdamW over a task's parameters, and learning rates as pure functions of the step.

The rate of a step depends on nothing but the settings and the step's number, so there is no scheduler state to save.
"""

from __future__ import annotations

import math
from bisect import bisect_right

import torch
from torch import nn

from regionvlp.errors import ConfigError
from regionvlp.training.settings import OptimSettings


def build_optimizer(module: nn.Module, settings: OptimSettings) -> torch.optim.AdamW:
    """Returns AdamW over the parameters of ``module`` that require a gradient.

    ``eps`` is added the way torch does, to the bias-corrected root: ``m^ / (sqrt(v^) + eps)``. The class that the
    public DemoVLP and Frozen code used (transformers 4) adds it to the root before correction, which makes its eps
    larger by ``1 / sqrt(1 - beta2**t)``: 32 times in the first step, 1.26 times by step 1000, then soon nothing.

    Raises:
        ConfigError: nothing in ``module`` can be trained.
    """
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    if not named:
        raise ConfigError("no parameter requires a gradient", "unfreeze a part of the model")
    bare = set() if settings.decay_everything else _undecayed(module)
    groups = [
        {"params": [p for name, p in named if name not in bare], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in named if name in bare], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        # One kernel for all parameters; elsewhere torch chooses.
        fused=True if all(p.is_cuda for _, p in named) else None,
    )


def _undecayed(module: nn.Module) -> set[str]:
    """Names of biases, norms (one dimension) and embeddings: tables, and bare tensors named token or embed."""
    tables = {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        if isinstance(part, nn.Embedding)
        for name, _ in part.named_parameters(recurse=False)
    }
    return tables | {
        name
        for name, parameter in module.named_parameters()
        if parameter.ndim < 2 or any(word in name.rpartition(".")[2] for word in ("embed", "token"))
    }


def lr_at(step: int, settings: OptimSettings, steps_per_epoch: int, total_steps: int) -> float:
    """Returns the learning rate of one optimizer step.

    Args:
        step: optimizer steps done before this one (the first step is 0).
        settings: the schedule and its numbers.
        steps_per_epoch: optimizer steps in an epoch.
        total_steps: optimizer steps in the whole run; only ``cosine`` reads it.
    """
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    epochs_done = step // steps_per_epoch
    if settings.schedule == "cosine":
        rate = cosine_lr(step, settings, total_steps)
    elif settings.schedule == "paper":
        rate = settings.lr * _decayed(epochs_done, settings)
    elif settings.schedule == "public":
        rate = public_lr(epochs_done, settings)
    else:
        rate = settings.lr
    return warm * rate


def cosine_lr(step: int, settings: OptimSettings, total_steps: int) -> float:
    """Half a cosine from ``lr``, at the end of the warm-up, to zero after the last step."""
    done = max(0, step - settings.warmup_steps) / max(1, total_steps - settings.warmup_steps)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def public_lr(epochs_done: int, settings: OptimSettings) -> float:
    """What the public DemoVLP command really uses (spec section 5.1): ``lr`` in the first epoch, then another rate.

    Its trainer sets the rate after every epoch from a second command-line value, whose default of 2e-4 the
    documented commands never mention. Decay at a milestone takes effect in the epoch after it, as in ``paper``.
    """
    return settings.lr if epochs_done == 0 else settings.lr_after_first_epoch * _decayed(epochs_done, settings)


def _decayed(epochs_done: int, settings: OptimSettings) -> float:
    return settings.decay ** bisect_right(settings.milestones, epochs_done)
