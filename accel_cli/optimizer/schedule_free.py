"""Schedule-free AdamW: the mean of the weights is kept as one goes, so that no rate has to decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.optimizer.base import with_rates
from accel_cli.optimizer.own import Own, gradients, local


class ScheduleFree(Own):
    """The weights that are trained are y, between z, which takes the steps, and x, the mean of z, which is evaluated.

    x is (y - (1 - beta1) z) / beta1: it is worked out where it is wanted, and y never leaves its place. The package
    schedulefree turns y into x and back, which changes its last bits, and counts where a checkpoint by parameter does
    not see it.
    """

    buffers = ("z", "exp_avg_sq")
    numbers = ("step", "weight_sum", "largest_rate")

    def begin(self, parameter: Tensor) -> dict[str, Tensor]:
        return {"z": parameter.detach().clone(), "exp_avg_sq": torch.zeros_like(parameter)}

    def update(self, group: dict[str, Any], parameters: list[Tensor], state: dict[str, Any]) -> dict[str, float]:
        y, found, z, squares = [local(p) for p in parameters], gradients(parameters), state["z"], state["exp_avg_sq"]
        rate, beta1, beta2, step = group["lr"], group["beta1"], group["beta2"], state["step"] + 1
        largest = max(rate, state["largest_rate"])
        weight_sum = state["weight_sum"] + largest**2
        share = largest**2 / weight_sum if weight_sum else 0.0
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, found, found, value=1 - beta2)
        divisors = torch._foreach_div(squares, 1 - beta2**step)
        torch._foreach_sqrt_(divisors)
        torch._foreach_add_(divisors, group["epsilon"])
        steps = torch._foreach_div(found, divisors)
        if group["weight_decay"]:
            torch._foreach_add_(steps, y, alpha=group["weight_decay"])
        torch._foreach_lerp_(y, z, share)
        torch._foreach_add_(y, steps, alpha=rate * (beta1 * (1 - share) - 1))
        torch._foreach_sub_(z, steps, alpha=rate)
        return {"step": step, "weight_sum": weight_sum, "largest_rate": largest}

    def average(self, parameter: Tensor) -> Tensor | None:
        """x, of a parameter that has been stepped; None before."""
        if parameter not in self.state:
            return None
        beta1 = self.defaults["beta1"]
        return parameter.detach().lerp(self.state[parameter]["z"], 1 - 1 / beta1)


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> ScheduleFree:
    """Schedule-Free AdamW (Defazio et al. 2024, arXiv:2405.15682); decay is at y, apart from the gradient."""
    return ScheduleFree(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        beta1=config.beta1,
        beta2=config.beta2,
        epsilon=config.epsilon,
    )
