"""Images cut from a border of their own reflection."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from accel_cli.augment.base import Transform
from accel_cli.augment.draws import Draws, Floats, sent
from accel_cli.description import DataDescription


class Crop(Transform):
    """What RandomCrop(size, padding, padding_mode="reflect") does in torchvision."""

    names = ("crop.down", "crop.right")
    on_stored = True

    def __init__(self, config: Any, description: DataDescription) -> None:
        """Raise ConfigError where the inputs are not images, or the border is wider than they can reflect."""
        super().__init__(config, description)
        require_border(self, "padding", config.padding)

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        return shift(inputs, draws.numbers("crop.down"), draws.numbers("crop.right"), self.config.padding)


def require_border(transform: Transform, key: str, border: int) -> None:
    """Raise ConfigError where images cannot reflect so many pixels."""
    side = min(transform.require_images()[1:])
    if border >= side:
        why = f"an image of {side} pixels reflects {side - 1} at most"
        fix = f"try augment.transforms.{transform.config.option}.{key}={min(side - 1, side // 8)}"
        raise transform.refuse(why, fix, key)


def shift(images: Tensor, down: Floats, right: Floats, border: int) -> Tensor:
    """Each image [n, channels, height, width] cut from its reflected border, at a place drawn from [0, 1).

    A row of the result is a window into a row with its border, so that all are copied in one call: twice as fast as
    gathering pixel by pixel.
    """
    n, channels, height, width = images.shape
    across = width + 2 * border
    bordered = _with_border(images, border)
    windows = bordered.as_strided((bordered.numel() - width + 1, width), (1, 1))
    places = 2 * border + 1
    rows = _rows(height, border)[(down * places).astype(numpy.int64)] * across
    rows += (right * places).astype(numpy.int64)[:, None]
    starts = numpy.arange(0, n * channels * height * across, height * across).reshape(n, channels, 1) + rows[:, None]
    return windows.index_select(0, sent(starts.reshape(-1), images.device)).view(images.shape)


def _with_border(images: Tensor, border: int) -> Tensor:
    """A reflected border at the left and the right."""
    if images.device.type == "cpu":
        return functional.pad(images, (border, border, 0, 0), mode="reflect")
    columns = _reflected(numpy.arange(-border, images.shape[3] + border), images.shape[3])
    return images.index_select(3, sent(columns, images.device))


@cache
def _rows(height: int, border: int) -> NDArray[numpy.int64]:
    """[places, height]: the rows that an image shows when it is cut from each place downwards."""
    places = numpy.arange(-border, border + 1)[:, None]
    return _reflected(numpy.arange(height) + places, height)


def _reflected(positions: NDArray[numpy.int64], length: int) -> NDArray[numpy.int64]:
    """Positions outside [0, length) mirrored at the first and last pixel, as numpy's and torch's pad "reflect"."""
    return (length - 1) - numpy.abs((length - 1) - numpy.abs(positions))
