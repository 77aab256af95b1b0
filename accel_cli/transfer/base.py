"""Train from the model's own first values: the transfer that changes nothing, which the others build on."""

from __future__ import annotations

from typing import Any

from torch import nn

from accel_cli.config.schema.base import Option
from accel_cli.description import DataDescription
from accel_cli.structure import Structural


class Transfer(Structural):
    """Called on the plain model, before any strategy, compilation or wrapper has touched it."""

    def __init__(self, config: Option):
        self.config = config

    def apply(self, model: nn.Module, description: DataDescription | None = None) -> list[str]:
        """Load and freeze in place; returns lines for the user. Applying twice gives the same model.

        ``description`` is this run's data, for a word where the weights were trained on other classes.
        """
        return []

    def rates(self, model: nn.Module) -> dict[str, float]:
        """Learning-rate multipliers by parameter name, only those that are not 1. Call it after ``apply``."""
        return {}

    def frozen_modules(self, model: nn.Module) -> list[nn.Module]:
        """Modules that training must keep in eval mode, such as BatchNorm whose parameters are all frozen."""
        return []

    def head(self, model: nn.Module, task: Any, batch: Any, samples: int) -> Any:
        """The part to train alone, on what the frozen rest gives; None: train them all.

        What the rest gives is then computed once; unless the part's ``always`` is false and it is not the same in every
        epoch. Called in evaluation mode with a batch of so many samples; freezes in place.
        """
        return None
