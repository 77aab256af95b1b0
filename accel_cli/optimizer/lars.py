"""LARS: SGD with a rate for every layer, from the sizes of its weights and of its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.optimizer.base import with_rates
from accel_cli.optimizer.own import Own, gradients, local, norms


class Lars(Own):
    """v <- momentum x v + rate x trust x |w| / (|g| + decay x |w|) x (g + decay x w), w <- w - v.

    Vectors, such as biases, take rate x (g + decay x w). timm's leaves out the layers' own rates with the weight decay.
    """

    buffers = ("momentum_buffer",)

    def update(self, group: dict[str, Any], parameters: list[Tensor], state: dict[str, Any]) -> dict[str, float]:
        weights, found, decay = [local(p) for p in parameters], gradients(parameters), group["weight_decay"]
        steps = torch._foreach_add(found, weights, alpha=decay)
        matrices = [index for index, p in enumerate(parameters) if p.dim() >= 2]
        if matrices:
            like = [parameters[index] for index in matrices]
            size, slope = (norms([held[index] for index in matrices], like) for held in (weights, found))
            ratios = group["trust"] * size / (slope + decay * size + group["epsilon"])
            ratios = torch.where((size > 0) & (slope > 0), ratios, 1.0)
            torch._foreach_mul_([steps[index] for index in matrices], list(ratios.unbind()))
        torch._foreach_mul_(state["momentum_buffer"], group["momentum"])
        torch._foreach_add_(state["momentum_buffer"], steps, alpha=group["lr"])
        torch._foreach_sub_(weights, state["momentum_buffer"])
        return {}


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> Lars:
    """LARS (You, Gitman and Ginsburg 2017, arXiv:1708.03888)."""
    return Lars(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        momentum=config.momentum,
        trust=config.trust,
        epsilon=config.epsilon,
    )
