"""The user's own loss and metrics."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.config.factory import load_factory
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.task.base import Sums, Task
from accel_cli.task.batch import samples


class Custom(Task):
    """An object of the user's class, ``factory(**args)``; batches are whatever her data makes.

    ``loss(model, batch)`` returns the mean over the samples of the batch, or (sum, weight).
    ``metrics(model, batch)``, optional, returns {name: mean or (sum, weight)}.
    ``weight(batch)``, optional: what the batch counts in a mean; without it, its samples.
    """

    metrics = None

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.metric = config.metric
        self.mode = config.mode
        self.own = self._make()
        self.varying_weight = hasattr(self.own, "weight")
        self._compared_on_device = False

    def _make(self) -> Any:
        where = f"task.factory={self.config.factory}"
        factory = load_factory(self.config.factory, "task.factory")
        try:
            inspect.signature(factory).bind(**self.config.args)
        except TypeError as error:
            fix = f"its arguments are {inspect.signature(factory)}"
            raise ConfigError(Problem(f"task.args={self.config.args}", str(error), fix)) from None
        own = factory(**self.config.args)
        if not callable(getattr(own, "loss", None)):
            raise ConfigError(Problem(where, "has no loss(model, batch)", "add one that returns the batch's mean loss"))
        return own

    def forward(self, model: nn.Module, batch: Any) -> Any:
        """What the user's loss returns: only she knows how her model is called."""
        return self.own.loss(model, batch)

    def check(self, output: Any, batch: Any) -> None:
        """Raise ConfigError if the loss is no scalar, or its weight is another than ``weight`` says."""
        self.loss_of(output, batch)

    def weight(self, batch: Any) -> float:
        return float(self.own.weight(batch)) if self.varying_weight else float(samples(batch))

    def loss_of(self, output: Any, batch: Any) -> tuple[Tensor, float]:
        weight = self.weight(batch)
        if isinstance(output, tuple):
            self._compare(output, weight)
            return self._scalar(output[0], "loss"), weight
        return self._scalar(output, "loss") * weight, weight

    def evaluate(self, model: nn.Module, batch: Any) -> Sums:
        total, weight = self.loss(model, batch)
        sums: Sums = {"loss": (total.detach(), weight)}
        values = self.own.metrics(model, batch) if hasattr(self.own, "metrics") else {}
        for name, value in values.items():
            if isinstance(value, tuple):
                sums[name] = (self._scalar(value[0], name).to(total.device), float(value[1]))
            else:
                sums[name] = (self._scalar(value, name).to(total.device) * weight, weight)
        if self.metric not in sums:
            raise ConfigError(
                Problem(
                    f"task.metric={self.metric}",
                    f"{self.config.factory} gives {', '.join(sorted(sums))}",
                    "try task.metric=loss, or return it from metrics(model, batch)",
                )
            )
        return sums

    def _scalar(self, value: Any, name: str) -> Tensor:
        tensor = torch.as_tensor(value)
        if tensor.numel() != 1:
            why = f"its {name} has the shape {list(tensor.shape)}"
            fix = "return a scalar: the mean over the batch, or (sum, weight)"
            raise ConfigError(Problem(f"task.factory={self.config.factory}", why, fix))
        return tensor.reshape(())

    def _compare(self, pair: tuple[Any, ...], weight: float) -> None:
        """Refuse a loss whose weight is not what the engine has divided by; on a device look only once: it waits."""
        given = pair[1]
        on_device = isinstance(given, Tensor) and given.device.type != "cpu"
        if on_device and self._compared_on_device:
            return
        self._compared_on_device |= on_device
        if math.isclose(float(given), weight, rel_tol=1e-6):
            return
        source = "weight(batch)" if self.varying_weight else "the batch's samples"
        raise ConfigError(
            Problem(
                f"task.factory={self.config.factory}",
                f"loss(model, batch) returned the weight {float(given):g}, but by {source} it is {weight:g}",
                "let weight(batch) return the weight that loss divides by",
            )
        )
