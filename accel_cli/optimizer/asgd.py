"""Averaged SGD: plain steps, and the mean of the weights that they lead through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.optimizer.base import kernel, with_rates


class ASGD(torch.optim.ASGD):
    """torch's ASGD, which also says what its average of a weight is."""

    def average(self, parameter: Tensor) -> Tensor | None:
        """The mean of the weights since ``t0``; None before the first step."""
        return self.state[parameter]["ax"] if parameter in self.state else None


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> ASGD:
    """ASGD (Polyak and Juditsky 1992); its decay is L2. Torch has no fused kernel for it."""
    return ASGD(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        lambd=config.shrink,
        alpha=config.power,
        t0=config.average_from,
        **kernel(config, None, groups, device),
    )
