"""A multilayer perceptron on the flattened input."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import nn

from accel_cli.config.schema.model import MLP
from accel_cli.description import DataDescription
from accel_cli.model.base import outputs, require

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def build(config: MLP, description: DataDescription) -> nn.Module:
    """Inputs [n, ...] of images or vectors -> [n, classes or outputs]. Raises ConfigError for tokens."""
    require(config, description, inputs=("image", "vector"), targets=("class", "number"))
    sizes = [math.prod(description.input_shape), *config.widths]
    model = nn.Sequential(nn.Flatten())
    for size, width in pairwise(sizes):
        model.extend([nn.Linear(size, width), ACTIVATIONS[config.activation]()])
        if config.dropout:
            model.append(nn.Dropout(config.dropout))
    return model.append(nn.Linear(sizes[-1], outputs(config, description)))
