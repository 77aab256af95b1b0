"""Adamax: Adam with the largest gradient of late in the denominator."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, walked, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Adamax:
    """Adamax (Kingma and Ba 2015, arXiv:1412.6980, section 7.1); its decay is L2. Torch has no fused kernel for it."""
    return torch.optim.Adamax(
        with_rates(walked(config, groups), config.learning_rate),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        **kernel(config, None, groups, device),
    )
