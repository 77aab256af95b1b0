"""Rprop: a step size for every weight, grown and shrunk by the sign of the gradient alone."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Rprop:
    """Rprop (Riedmiller and Braun 1993); it has no weight decay. Torch has no fused kernel for it."""
    return torch.optim.Rprop(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        etas=(config.shrink, config.grow),
        step_sizes=(config.smallest_step, config.largest_step),
        **kernel(config, None, groups, device),
    )
