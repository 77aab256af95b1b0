"""Train the head of a model alone, to see what the rest of it knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from accel_cli.config.schema.transfer import LinearProbe as Schema
from accel_cli.description import DataDescription
from accel_cli.transfer.base import Transfer
from accel_cli.transfer.finetune import begin
from accel_cli.transfer.head import Head, alone


class LinearProbe(Transfer):
    """All but the head is frozen, in evaluation mode (Alain and Bengio 2016, arXiv:1610.01644).

    Where a sample is the same in every epoch, what the rest gives for it is computed once, as with frozen_features;
    where something is drawn, every epoch draws anew and runs the whole model, where frozen_features keeps a few views.
    """

    config: Schema

    def __init__(self, config: Schema):
        super().__init__(config)
        self._head: Head | None = None

    def apply(self, model: nn.Module, description: DataDescription | None = None) -> list[str]:
        """Load. Raises ConfigError for what cannot be found or matched, SecurityError for a pickle."""
        return begin(model, self.config.weights, description)[1]

    @torch.no_grad()
    def head(self, model: nn.Module, task: Any, batch: Any, samples: int) -> Head:
        """Find the head, prove it, freeze the rest. Raises ConfigError where there is none to prove."""
        self._head = alone(self.config.head, 1, model, task, batch, samples, always=False)
        return self._head

    def frozen_modules(self, model: nn.Module) -> list[nn.Module]:
        """All that does not hold the head; and all, where the head itself behaves alike in both modes."""
        if self._head is None:
            return []
        if next(self._head.module.children(), None) is None:
            return [model]
        head = f"{self._head.name}."
        others = {f"{name}.": module for name, module in model.named_modules() if name}
        return [m for name, m in others.items() if not head.startswith(name) and not name.startswith(head)]
