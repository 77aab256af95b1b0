"""AdamW: Adam with weight decay apart from the gradient."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); decay is scaled by the learning rate."""
    return torch.optim.AdamW(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        **kernel(config, "_fused_adamw_", groups, device),
    )
