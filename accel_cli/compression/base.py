"""A pass that makes the model smaller around training: here, nothing."""

from __future__ import annotations

from typing import Any

from torch import nn

from accel_cli.config.schema.base import Option


class Pass:
    """Called in the order in which passes are named. The harmless pass leaves every weight as it is."""

    views: int | None = None
    """Epochs after which a sample's draws repeat, where something of it was computed beforehand; None: never."""

    def __init__(self, config: Option) -> None:
        self.config = config

    def prepare(self, model: nn.Module) -> nn.Module:
        """Before training and before the strategy lays the model out: the model to train, changed in place or new."""
        return model

    def check(self, task: Any, outputs: Any) -> None:
        """Raise ConfigError where ``teach`` would, as far as nothing has to be computed for that."""

    def teach(self, task: Any, augment: Any, outputs: Any) -> tuple[Any, Any]:
        """What training goes by, and what changes its batches, once all else is built: (task, augment).

        ``outputs`` makes models of runs, and keeps what they give for the run's data.
        """
        return task, augment

    def after_step(self, model: nn.Module, step: int) -> None:
        """After the optimizer's update number ``step``, such as to put masked weights back to zero."""

    def finish(self, model: nn.Module) -> nn.Module:
        """After training, before the test split and export: the model to keep."""
        return model
