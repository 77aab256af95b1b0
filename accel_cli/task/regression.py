"""Numbers to predict."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.task.base import Sums, Task, shape
from accel_cli.task.batch import split


class Regression(Task):
    """Squared error of outputs [n, outputs], averaged over the outputs of a sample.

    Metrics: ``mse``, which is the loss, ``mae``, and for a single output ``r2``, the explained share of the
    targets' variance, left out where the targets hardly vary about their mean.
    """

    target = "number"
    metric = "mse"
    mode = "min"

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.single = description.outputs == 1
        self.metrics = ("loss", "mse", "mae", *(["r2"] if self.single else []))

    def check(self, output: Any, batch: Any) -> None:
        super().check(output, batch)
        _, targets = split(batch)
        count = targets.shape[0]
        if output.numel() != targets.numel():
            outputs = targets.numel() // count
            raise ConfigError(
                Problem(
                    "model",
                    f"returned {shape(output)} for targets {shape(targets)}",
                    f"end the model in {outputs} outputs; model=custom: see model.args",
                )
            )

    def loss_of(self, output: Tensor, batch: Any) -> tuple[Tensor, float]:
        predicted, wanted = self._pair(output, batch)
        return (predicted - wanted).square().mean(1).sum(), self.weight(batch)

    def measure(self, output: Tensor, batch: Any) -> Sums:
        predicted, wanted = self._pair(output, batch)
        weight = self.weight(batch)
        squared = (predicted - wanted).square().mean(1).sum()
        sums = {
            "loss": (squared, weight),
            "mse": (squared, weight),
            "mae": ((predicted - wanted).abs().mean(1).sum(), weight),
        }
        if self.single:
            # Variance is a small difference of large sums; mps has no double.
            exact = wanted if wanted.device.type == "mps" else wanted.double()
            sums["_target"] = (exact.sum(), weight)
            sums["_target_squared"] = (exact.square().sum(), weight)
        return sums

    def summarize(self, means: dict[str, float], split: str = "test") -> dict[str, float]:
        shown = {name: value for name, value in means.items() if not name.startswith("_")}
        if "_target" in means:
            variance = means["_target_squared"] - means["_target"] ** 2
            # Below that, what is left of single precision is noise.
            if variance > 1e-5 * means["_target_squared"]:
                shown["r2"] = 1.0 - means["mse"] / variance
        return shown

    def _pair(self, output: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
        # [n] against [n, 1] would broadcast to [n, n] without an error.
        _, targets = split(batch)
        count = targets.shape[0]
        return output.float().reshape(count, -1), targets.float().reshape(count, -1)
