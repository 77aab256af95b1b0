"""What every task shares: from a batch to the model's output, and sums instead of means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.task.batch import samples, split

Sums = dict[str, tuple[Tensor, float]]
"""Metric name -> its sum over the batch, 0-dim, and the weight to divide it by."""

BY_TARGET = {"class": "classification", "number": "regression", "next_token": "language_model"}
SAID = {"class": "classes", "number": "numbers", "next_token": "next tokens", "other": "targets of its own"}


def resolve(description: DataDescription) -> str:
    """The option that task=auto stands for. Raises ConfigError if the data does not say what to predict."""
    if description.target in BY_TARGET:
        return BY_TARGET[description.target]
    raise ConfigError(
        Problem(
            "task=auto",
            "the data does not say what is to be predicted",
            "try task=classification, task=regression, or task=custom task.factory=my_file:MyTask",
        )
    )


class Task:
    """A subclass has ``loss_of`` and ``measure``.

    ``metric`` decides which checkpoint is best, more or less being better by ``mode``; ``metrics`` are the names
    that ``evaluate`` and ``summarize`` give, None where only an evaluation tells; ``varying_weight``: whether the
    weight of a batch may differ from what its size tells.
    """

    target: ClassVar[str] = ""
    metric: str = "loss"
    mode: Literal["min", "max"] = "min"
    metrics: tuple[str, ...] | None = ("loss",)
    varying_weight: bool = False

    def __init__(self, config: Any, description: DataDescription) -> None:
        self.config = config
        self.description = description
        if description.target not in (self.target, "other") and self.target:
            raise ConfigError(
                Problem(f"task={config.option}", f"the data has {SAID[description.target]}", "try task=auto")
            )
        if config.option == "auto":
            self._refuse_foreign_keys()

    def _refuse_foreign_keys(self) -> None:
        # task=auto has the keys of every task that it may become.
        foreign = {"label_smoothing": "class", "test_time_augmentation": "class", "ignored_targets": "next_token"}
        problems = [
            Problem(
                f"task.{key}={getattr(self.config, key)}",
                f"has a meaning for {SAID[target]} only; the data has {SAID[self.description.target]}",
                "leave it out",
            )
            for key, target in foreign.items()
            if getattr(self.config, key) not in (0, False, "none") and target != self.target
        ]
        if problems:
            raise ConfigError(problems)

    def forward(self, model: nn.Module, batch: Any) -> Tensor:
        """The model's output for the inputs of a batch; of an object or dict with logits, those."""
        inputs, _ = split(batch)
        output = model(inputs) if type(inputs) is Tensor or not isinstance(inputs, Mapping) else model(**inputs)
        if type(output) is Tensor:
            return output
        if isinstance(output, Mapping) and "logits" in output:
            return output["logits"]
        return getattr(output, "logits", output)

    def check(self, output: Any, batch: Any) -> None:
        """Raise ConfigError, with what to type, where the model's output cannot fit the data."""
        if not isinstance(output, Tensor):
            raise ConfigError(
                Problem(
                    "model",
                    f"returned a {type(output).__name__}, not a tensor",
                    "return the logits, or an object that has .logits",
                )
            )
        count = samples(batch)
        if output.dim() == 0 or output.shape[0] != count:
            raise ConfigError(
                Problem(
                    "model",
                    f"returned {shape(output)} for a batch of {count} samples",
                    "return one row a sample, not a loss: the task computes the loss",
                )
            )

    def weight(self, batch: Any) -> float:
        """What the batch counts in a mean, known before forward: samples, or tokens."""
        return float(samples(batch))

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, float]:
        """(sum over the batch, 0-dim and differentiable; its weight)."""
        return self.loss_of(self.forward(model, batch), batch)

    def loss_of(self, output: Tensor, batch: Any) -> tuple[Tensor, float]:
        """The same from the model's output."""
        raise NotImplementedError

    def evaluate(self, model: nn.Module, batch: Any) -> Sums:
        """The sums of ``loss`` and of the task's metrics over the batch."""
        return self.measure(self.forward(model, batch), batch)

    def measure(self, output: Tensor, batch: Any) -> Sums:
        """The same from the model's output."""
        raise NotImplementedError

    def summarize(self, means: dict[str, float], split: str = "test") -> dict[str, float]:
        """Means over ``split`` -> what users see, with the metrics that follow from others."""
        return dict(means)


def shape(tensor: Tensor) -> str:
    """``[64, 10]``, for messages."""
    return str(list(tensor.shape))
