"""Communication: how gradients travel between ranks. The base sends them as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Communication:
    steady_from = 0
    """The step from which gradients travel as they will from then on."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def attach(self, model: nn.Module) -> None:
        """Put a hook on a data-parallel model. Exact communication needs none."""

    def state(self) -> dict[str, Tensor]:
        """Tensors of its own for a checkpoint, of every rank, on rank 0; a collective."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave, under the same option and world size."""

    @property
    def reduce_dtype(self) -> torch.dtype | None:
        """What sharded gradients are added in; None for their own."""
        return None

    def bytes_per_step(self, gradient_bytes: int, world_size: int) -> int:
        """Bytes that one rank sends in one step: a ring all-reduce sends every gradient 2 (n - 1) / n times."""
        return round(2 * (world_size - 1) / world_size * gradient_bytes)

    def bytes_sent(self, gradient_bytes: int, world_size: int, steps: int) -> int:
        """By one rank in the first ``steps`` steps of a run."""
        return steps * self.bytes_per_step(gradient_bytes, world_size)
