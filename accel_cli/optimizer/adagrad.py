"""Adagrad: steps divided by the root of all squared gradients so far."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Adagrad:
    """Adagrad (Duchi, Hazan and Singer 2011); its decay is L2."""
    return torch.optim.Adagrad(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        initial_accumulator_value=config.initial_accumulator,
        eps=config.epsilon,
        **kernel(config, "_fused_adagrad_", groups, device),
    )
