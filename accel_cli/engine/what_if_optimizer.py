"""What the optimizer's step would take with another kernel, or with torch's own in the place of the user's."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.config.parts import implementation
from accel_cli.engine.costs import Spent
from accel_cli.engine.training import Training
from accel_cli.engine.what_if_data import quickest
from accel_cli.optimizer.base import is_sharded
from accel_cli.optimizer.eager import eager
from accel_cli.optimizer.groups import parameter_groups

ROUNDS = 3
MOMENTS = 2
"""Tensors as large as the weights that another optimizer keeps, beside the gradients."""


def row(t: Training, spent: Spent) -> dict[str, Any] | None:
    """Steps of the run's optimizer and of another one, on the weights that the run has ended with."""
    config, phase = t.run.optimizer, spent.parts["optimizer"]
    if not spent.stands_out("optimizer") or any(map(is_sharded, t.parameters)):
        return None
    if getattr(config, "kernel", "auto") in ("loop", "foreach"):
        override, config = "optimizer.kernel=auto", config.model_copy(update={"kernel": "auto"})
    elif config.option == "custom":
        override, config = "optimizer=adamw", t.run.with_option("optimizer", "adamw").optimizer
    else:
        return None
    needed = (1 + MOMENTS) * sum(p.numel() * p.element_size() for p in t.parameters)
    if 3 * phase > spent.limit or needed > t.hardware.memory_limit(t.world.local_world_size) / 4:
        return None
    groups = parameter_groups(t.bare, config, t.transfer.rates(t.bare))
    other = eager(lambda: implementation("optimizer", config)(config, groups, t.world.device))
    for parameter in t.parameters:
        parameter.grad = torch.full_like(parameter, 1e-4)

    def step(optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        t.hardware.synchronize()

    rounds = max(1, min(ROUNDS, int(spent.limit / phase) - 2))
    own = quickest(lambda: step(t.optimizer), rounds)
    step(other)
    quicker = quickest(lambda: step(other), rounds)
    for parameter in t.parameters:
        parameter.grad = None
    saved = min(phase, own - quicker)
    return {"override": override, "own": phase, "other": phase - saved} if saved > 0 else None
