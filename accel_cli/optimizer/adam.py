"""Adam: per-weight step sizes from running moments of the gradient."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Adam:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980); its decay is L2."""
    return torch.optim.Adam(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        **kernel(config, "_fused_adam_", groups, device),
    )
