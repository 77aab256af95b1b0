"""RAdam: Adam that warms up by itself."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, walked, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.RAdam:
    """RAdam (Liu et al. 2020, arXiv:1908.03265); torch has no fused kernel for it."""
    return torch.optim.RAdam(
        with_rates(walked(config, groups), config.learning_rate),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        decoupled_weight_decay=config.decoupled_weight_decay,
        **kernel(config, None, groups, device),
    )
