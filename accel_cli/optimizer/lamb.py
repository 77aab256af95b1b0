"""LAMB: Adam's steps, each layer's as long as its weights ask for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.optimizer.base import with_rates
from accel_cli.optimizer.own import Own, gradients, local, norms


class Lamb(Own):
    """u = Adam's update + decay x w; w <- w - rate x (|w| / |u|) x u. Vectors, such as biases, are not rescaled.

    timm's keeps its count of steps where a checkpoint by parameter does not see it, and leaves out the rescaling with
    the weight decay.
    """

    buffers = ("exp_avg", "exp_avg_sq")
    numbers = ("step",)

    def update(self, group: dict[str, Any], parameters: list[Tensor], state: dict[str, Any]) -> dict[str, float]:
        weights, found, step = [local(p) for p in parameters], gradients(parameters), state["step"] + 1
        torch._foreach_lerp_(state["exp_avg"], found, 1 - group["beta1"])
        torch._foreach_mul_(state["exp_avg_sq"], group["beta2"])
        torch._foreach_addcmul_(state["exp_avg_sq"], found, found, value=1 - group["beta2"])
        divisors = torch._foreach_div(state["exp_avg_sq"], 1 - group["beta2"] ** step)
        torch._foreach_sqrt_(divisors)
        torch._foreach_add_(divisors, group["epsilon"])
        updates = torch._foreach_div(state["exp_avg"], 1 - group["beta1"] ** step)
        torch._foreach_div_(updates, divisors)
        if group["weight_decay"]:
            torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        matrices = [index for index, p in enumerate(parameters) if p.dim() >= 2]
        if matrices:
            like = [parameters[index] for index in matrices]
            size, asked = (norms([held[index] for index in matrices], like) for held in (weights, updates))
            ratios = torch.where((size > 0) & (asked > 0), size / asked, 1.0)
            torch._foreach_mul_([updates[index] for index in matrices], list(ratios.unbind()))
        torch._foreach_add_(weights, updates, alpha=-group["lr"])
        return {"step": step}


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> Lamb:
    """LAMB (You et al. 2020, arXiv:1904.00962), with phi the identity."""
    return Lamb(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
    )
