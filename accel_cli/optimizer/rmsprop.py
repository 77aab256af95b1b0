"""RMSprop: steps divided by the running root mean square of the gradient."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, walked, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.RMSprop:
    """RMSprop (Hinton 2012, lecture 6e), centered as in Graves 2013; torch has no fused kernel for it."""
    return torch.optim.RMSprop(
        with_rates(walked(config, groups), config.learning_rate),
        lr=config.learning_rate,
        alpha=config.smoothing,
        eps=config.epsilon,
        momentum=config.momentum,
        centered=config.centered,
        **kernel(config, None, groups, device),
    )
