"""Train a head on features that the frozen rest of the model gives, computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from accel_cli.config.schema.transfer import FrozenFeatures as Schema
from accel_cli.description import DataDescription
from accel_cli.transfer.base import Transfer
from accel_cli.transfer.finetune import begin
from accel_cli.transfer.head import Head, alone


class FrozenFeatures(Transfer):
    """Trained weights, of which all but the head stay as they are, in evaluation mode.

    An epoch costs what the head costs. Dropout and statistics before the head are those of evaluation.
    """

    config: Schema

    def apply(self, model: nn.Module, description: DataDescription | None = None) -> list[str]:
        """Load. Raises ConfigError for what cannot be found or matched, SecurityError for a pickle."""
        return begin(model, self.config.weights, description)[1]

    @torch.no_grad()
    def head(self, model: nn.Module, task: Any, batch: Any, samples: int) -> Head:
        """Find the head, prove it, freeze the rest. Raises ConfigError where features do not determine the output."""
        return alone(self.config.head, self.config.views, model, task, batch, samples)
