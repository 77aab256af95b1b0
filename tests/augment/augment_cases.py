"""Transforms of the option tree, and the samples that they are called for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor

from accel_cli.augment.base import Pipeline
from accel_cli.config import tree
from accel_cli.config.parts import implementation, table
from accel_cli.description import DataDescription

SAMPLES = 1000


def images(*shape: int, **facts: Any) -> DataDescription:
    """Of images [channels, height, width] in 10 classes."""
    known = {"input": "image", "target": "class", "classes": 10, "train_samples": SAMPLES}
    return DataDescription(**{**known, "input_shape": shape, **facts})


def transform(option: str, description: DataDescription, **changes: Any) -> Any:
    """An option as its YAML has it, with changes."""
    values = tree.read_yaml(tree.options("augment")[option]) | changes
    config: Any = table("augment")[option].schema.model_validate({**values, "option": option})
    return implementation("augment", config)(config, description)


def pipeline(names: Sequence[str], description: DataDescription, seed: int = 0, steps: int = 10, **changes: Any) -> Any:
    """Options one after another; ``changes`` by option."""
    made = [transform(name, description, **changes.get(name, {})) for name in names]
    return Pipeline(made, seed, steps)


def named(count: int, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """The first samples of an epoch."""
    return torch.full((count,), epoch), torch.arange(count)


class Given:
    """A draw for every name, whatever the sample: to see what a transform makes of a number."""

    def __init__(self, count: int, **numbers: float) -> None:
        self.epochs = numpy.zeros(count, numpy.int64)
        self.known = numbers

    def numbers(self, name: str) -> Any:
        value = self.known.get(name.replace(".", "_"), 0.5)
        return numpy.broadcast_to(numpy.float32(value), self.epochs.shape).copy()

    def uniform(self, name: str) -> Tensor:
        return torch.from_numpy(self.numbers(name))
