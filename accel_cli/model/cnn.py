"""A small convolutional net that adapts to images of a few pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from accel_cli.config.schema.model import CNN
from accel_cli.description import DataDescription
from accel_cli.model.base import normalise, outputs, require

SMALLEST_POOLED = 4
"""Pixels on the shorter side below which an image is not halved any more."""


class ConvNet(nn.Module):
    """3x3 convolutions with halving in between, global average pooling, a linear head.

    images [n, channels, height, width] -> [n, count]
    """

    def __init__(self, shape: tuple[int, ...], channels: list[int], normalisation: str, dropout: float, count: int):
        super().__init__()
        side = min(shape[1:])
        self.stages = nn.Sequential()
        for number, (before, after) in enumerate(pairwise([shape[0], *channels]), 1):
            stage = nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, bias=False), normalise(normalisation, after), nn.ReLU()
            )
            if side >= SMALLEST_POOLED and number < len(channels):
                stage.append(nn.MaxPool2d(2))
                side //= 2
            self.stages.append(stage)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], count)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.dropout(self.stages(images).mean(dim=(2, 3))))


def build(config: CNN, description: DataDescription) -> nn.Module:
    """Images [n, channels, height, width] -> [n, classes or outputs]. Raises ConfigError for other data."""
    require(config, description, inputs=("image",), targets=("class", "number"))
    return ConvNet(
        description.input_shape,
        config.channels,
        config.normalisation,
        config.dropout,
        outputs(config, description),
    )
