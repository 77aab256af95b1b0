"""Adadelta: steps as large as the last ones were, divided by the gradients' size."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, walked, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Adadelta:
    """Adadelta (Zeiler 2012, arXiv:1212.5701); its decay is L2. Torch has no fused kernel for it."""
    return torch.optim.Adadelta(
        with_rates(walked(config, groups), config.learning_rate),
        lr=config.learning_rate,
        rho=config.smoothing,
        eps=config.epsilon,
        **kernel(config, None, groups, device),
    )
