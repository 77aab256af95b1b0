"""Rprop: a step size for every weight, grown and shrunk by the sign of the gradient alone."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, with_rates
from accel_cli.optimizer.own import local


class Rprop(torch.optim.Rprop):
    """torch's Rprop, on what a rank holds of sharded parameters: its masks know no DTensors."""

    def _init_group(self, group: dict[str, Any], *lists: list[Any]) -> bool:
        is_complex: bool = super()._init_group(group, *lists)
        for tensors in lists:
            tensors[:] = map(local, tensors)
        return is_complex


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> Rprop:
    """Rprop (Riedmiller and Braun 1993); it has no weight decay. Torch has no fused kernel for it."""
    return Rprop(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        etas=(config.shrink, config.grow),
        step_sizes=(config.smallest_step, config.largest_step),
        **kernel(config, None, groups, device),
    )
