"""One class a sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.task.base import Sums, Task, shape
from accel_cli.task.batch import samples, split
from accel_cli.task.views import mean_of_views

TOP = 5


class Classification(Task):
    """Cross-entropy over logits [n, classes], with label smoothing (Szegedy et al. 2016, arXiv:1512.00567).

    Targets: class numbers [n], or of mixed samples probabilities [n, classes]. Evaluation measures the loss without
    smoothing, so that runs can be compared.
    """

    target = "class"
    metric = "accuracy"
    mode = "max"

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.top = (description.classes or 0) > TOP
        self.metrics = ("loss", "accuracy", *(["top5_accuracy"] if self.top else []))
        if config.test_time_augmentation != "none" and description.input != "image":
            raise ConfigError(
                Problem(
                    f"task.test_time_augmentation={config.test_time_augmentation}",
                    f"mirrors images; the inputs of this data are {description.input}",
                    "try task.test_time_augmentation=none",
                )
            )

    def check(self, output: Any, batch: Any) -> None:
        super().check(output, batch)
        _, targets = split(batch)
        classes = self.description.classes or output.shape[-1]
        if output.dim() != 2 or output.shape[1] != classes:
            raise ConfigError(
                Problem(
                    "model",
                    f"returned {shape(output)} for {classes} classes; wanted [{samples(batch)}, {classes}]",
                    f"end the model in {classes} logits; model=custom: try model.args.num_classes={classes}",
                )
            )
        if targets.dim() != 1 or targets.is_floating_point() or targets.is_complex():
            raise ConfigError(
                Problem(
                    "task=classification",
                    f"targets are {targets.dtype} {shape(targets)}, not class numbers [{samples(batch)}]",
                    "try task=regression, or task=custom task.factory=my_file:MyTask",
                )
            )
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= classes:
            raise ConfigError(
                Problem(
                    "data",
                    f"a target is {low if low < 0 else high}; classes are numbered 0 ... {classes - 1}",
                    f"number the classes from 0, or end the model in {high + 1} logits",
                )
            )

    def loss_of(self, output: Tensor, batch: Any) -> tuple[Tensor, float]:
        _, targets = split(batch)
        smoothing = self.config.label_smoothing
        total = functional.cross_entropy(output.float(), targets, reduction="sum", label_smoothing=smoothing)
        return total, self.weight(batch)

    def evaluate(self, model: nn.Module, batch: Any) -> Sums:
        return self.measure(mean_of_views(self.forward, model, batch, self.config.test_time_augmentation), batch)

    def measure(self, output: Tensor, batch: Any) -> Sums:
        _, targets = split(batch)
        weight = self.weight(batch)
        sums = {
            "loss": (functional.cross_entropy(output.float(), targets, reduction="sum"), weight),
            "accuracy": ((output.argmax(1) == targets).sum(), weight),
        }
        if self.top:
            sums["top5_accuracy"] = ((output.topk(TOP, 1).indices == targets[:, None]).sum(), weight)
        return sums
