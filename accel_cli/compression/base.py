"""A pass that makes the model smaller around training: here, nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from accel_cli.config.schema.base import Option
from accel_cli.structure import Structural


class Pass(Structural):
    """Called in the order in which passes are named. The harmless pass leaves every weight as it is."""

    views: int | None = None
    """Epochs after which a sample's draws repeat, where something of it was computed beforehand; None: never."""

    def __init__(self, config: Option) -> None:
        self.config = config

    def check(self, model: nn.Module, task: Any, outputs: Any) -> None:
        """Raise ConfigError where ``change`` or ``teach`` would, as far as nothing has to be computed for that.

        ``model`` is the whole one, on the host; it is thrown away afterwards.
        """

    def teach(self, task: Any, augment: Any, outputs: Any) -> tuple[Any, Any]:
        """What training goes by, and what changes its batches, once all else is built: (task, augment).

        ``outputs`` makes models of runs, and keeps what they give for the run's data.
        """
        return task, augment

    def attach(self, model: nn.Module) -> None:
        """Called once with what this rank holds of the model, sharded or not, before the first step of each phase."""

    def follow(self, averages: Mapping[Tensor, Tensor]) -> None:
        """Called after ``attach``: parameter -> its average, which is evaluated instead; each as this rank holds it.

        A pass that sets weights from outside sets these too: the average follows only slowly.
        """

    def after_step(self, model: nn.Module, step: int) -> None:
        """After the optimizer's update number ``step``, such as to put masked weights back to zero."""

    def state(self) -> dict[str, Tensor]:
        """Tensors of the pass's own for a checkpoint, laid out as parameters of the attached model are."""
        return {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what ``state`` gave, each as this rank holds it; after ``attach``."""
