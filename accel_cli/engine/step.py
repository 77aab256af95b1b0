"""One optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from accel_cli.engine.training import Training


class StepReport(NamedTuple):
    """On the device, unread: reading them would wait for it."""

    loss: torch.Tensor
    """This rank's sum over its share of the global batch."""
    weight: float
    """Of the global batch: the losses of all ranks, divided by it, are the mean loss."""
    norm: torch.Tensor
    """Of all gradients, before clipping."""
    skipped: torch.Tensor
    """1.0 where the gradients held a number that is none, and no weight was changed."""


def train_step(training: Training, batches: Sequence[Any]) -> StepReport:
    """Update the weights once from this rank's share of one global batch."""
    t = training
    t.hardware.seed(step_seed(t.run.train.seed, t.step, t.strategy.losses.rank))
    set_learning_rate(t.optimizer, t.learning_rate * t.schedule(t.step, t.steps), t.schedule.momentum(t.step, t.steps))

    loss, weight = t.strategy.forward_backward(t, batches)

    t.scaler.unscale_(t.optimizer)
    norm = t.strategy.clip(t.parameters, t.run.train.clip_norm)
    skipped = t.scaler.step(t.optimizer, norm, fused=t.fused)
    t.scaler.update()
    for parameter in t.parameters:
        parameter.grad = None
    for hook in t.after_step:
        hook(t.step)
    t.clock.mark("optimizer")
    return StepReport(loss, weight, norm, skipped)


def set_learning_rate(optimizer: Optimizer, learning_rate: float, momentum: float | None = None) -> None:
    """Both are pure functions of the step; a group's own ``rate`` multiplies the rate. None leaves momentum alone."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get("rate", 1.0)
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif momentum is not None:
            group["momentum"] = momentum


def step_seed(seed: int, step: int, rank: int) -> int:
    """Dropout draws follow from (seed, step, rank): nothing to save, and a resumed run draws the same (splitmix64)."""
    value = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) & (2**64 - 1)
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (value ^ (value >> 27)) & (2**63 - 1)
