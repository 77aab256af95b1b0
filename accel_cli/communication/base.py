"""Communication: how gradients travel between ranks. The base sends them as they are."""

from __future__ import annotations

from typing import Any

from torch import nn


class Communication:
    def __init__(self, config: Any) -> None:
        self.config = config

    def attach(self, model: nn.Module) -> None:
        """Put a hook on a data-parallel model. Exact communication needs none."""

    def bytes_per_step(self, gradient_bytes: int, world_size: int) -> int:
        """Bytes that one rank sends in one step: a ring all-reduce sends every gradient 2 (n - 1) / n times."""
        return round(2 * (world_size - 1) / world_size * gradient_bytes)
