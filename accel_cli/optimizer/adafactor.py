"""Adafactor: the squared gradients of a matrix as one row and one column of sums."""

from __future__ import annotations

from typing import Any

import torch

from accel_cli.optimizer.base import kernel, with_rates


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> torch.optim.Adafactor:
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235); its decay is apart from the gradient."""
    return torch.optim.Adafactor(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        beta2_decay=-config.memory_growth,
        eps=(None, config.smallest_scale),
        d=config.clip_threshold,
        **kernel(config, None, groups, device),
    )
