"""Lion: steps of one size, in the direction of the sign of the momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.optimizer.base import with_rates
from accel_cli.optimizer.own import Own, gradients, local


class Lion(Own):
    """w <- w - rate x (sign(lerp(m, g, 1 - beta1)) + decay x w), m <- lerp(m, g, 1 - beta2)."""

    buffers = ("momentum_buffer",)

    def update(self, group: dict[str, Any], parameters: list[Tensor], state: dict[str, Any]) -> dict[str, float]:
        weights, found, momentum = [local(p) for p in parameters], gradients(parameters), state["momentum_buffer"]
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        updates = torch._foreach_lerp(momentum, found, 1 - group["beta1"])
        torch._foreach_sign_(updates)
        torch._foreach_add_(weights, updates, alpha=-group["lr"])
        torch._foreach_lerp_(momentum, found, 1 - group["beta2"])
        return {}


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> Lion:
    """Lion (Chen et al. 2023, arXiv:2302.06675); decay is apart from the gradient, scaled by the learning rate."""
    return Lion(
        with_rates(groups, config.learning_rate), lr=config.learning_rate, beta1=config.beta1, beta2=config.beta2
    )
