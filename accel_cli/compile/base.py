"""Compile: what torch.compile makes of the model. The base leaves it as written."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn


class Compile:
    def __init__(self, config: Any) -> None:
        self.config = config

    def apply(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """Compile in place: parameter names stay as they are. ``blocks`` are the model's like parts, in order.

        Raises ConfigError where there is nothing to compile so. Code is generated at the first call, not here.
        """

    def as_written(self) -> AbstractContextManager[Any]:
        """What runs inside is not compiled: evaluation, whose batches have other sizes and keep no gradients."""
        return nullcontext()
