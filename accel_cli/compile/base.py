"""Compile: what torch.compile makes of the model. The base leaves it as written."""

from __future__ import annotations

from typing import Any

from torch import nn


class Compile:
    def __init__(self, config: Any) -> None:
        self.config = config

    def apply(self, model: nn.Module) -> None:
        """Compile in place: parameter names stay as they are."""
