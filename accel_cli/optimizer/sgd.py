"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, start_momentum, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.SGD:
    """SGD with Polyak or Nesterov momentum (Sutskever et al. 2013); its decay is L2."""
    optimizer = torch.optim.SGD(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        **kernel(config, "_fused_sgd_", groups, device),
    )
    return start_momentum(optimizer)
