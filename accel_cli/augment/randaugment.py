"""RandAugment: a few operations of one strength for each image, drawn from fourteen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor

from accel_cli.augment import colour
from accel_cli.augment.base import Transform, replaced
from accel_cli.augment.draws import Draws, sent
from accel_cli.description import DataDescription

STRONGEST = 30
"""Magnitudes are 0 .. 30, as in the paper."""
Operation = Callable[[Tensor, float, Tensor], Tensor]
"""(images uint8 [m, channels, height, width], strength 0 .. 1, signs +1 or -1 [m]) -> the same shape"""


class RandAugment(Transform):
    """Cubuk et al. 2019, arXiv:1909.13719, with the operations and ranges of torchvision's RandAugment.

    Images that draw the same operation are changed together. Those stored as floats in 0 .. 1 are taken as bytes.
    """

    on_stored = True

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        colour.require_colours(self)
        self.turns = tuple((f"randaugment.{i}", f"randaugment.{i}.sign") for i in range(config.operations))
        self.names = tuple(name for turn in self.turns for name in turn)

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        if inputs.dtype == torch.uint8:
            return self._change(inputs, draws)
        return colour.on_pixels(
            self, inputs, lambda x: self._change((x * 255).round_().byte(), draws).float().div_(255)
        )

    def _change(self, images: Tensor, draws: Draws) -> Tensor:
        strength = self.config.magnitude / STRONGEST
        for choice, sign in self.turns:
            chosen = (draws.numbers(choice) * len(OPERATIONS)).astype(numpy.int64)
            signs = torch.from_numpy(numpy.where(draws.numbers(sign) < 0.5, -1.0, 1.0).astype(numpy.float32))
            for number in numpy.unique(chosen):
                operation = OPERATIONS[list(OPERATIONS)[number]]
                if operation is None:
                    continue
                places = (chosen == number).nonzero()[0]
                own, own_signs = (x[sent(places, x.device)] for x in (images, signs))
                images = replaced(images, places, operation(own, strength, sent(own_signs, images.device)))
        return images


def _move(images: Tensor, matrix: tuple[Tensor | float, ...]) -> Tensor:
    """Nearest pixels of ``matrix`` (a, b, c, d, e, f): output (x, y) shows the input at (ax + by + c, dx + ey + f).

    Pixels are counted from the centre; outside of the image is black.
    """
    m, _, height, width = images.shape
    x = torch.arange(width, device=images.device).sub(0.5 * width - 0.5).view(1, 1, width)
    y = torch.arange(height, device=images.device).sub(0.5 * height - 0.5).view(1, height, 1)
    a, b, c, d, e, f = (value.view(-1, 1, 1) if isinstance(value, Tensor) else value for value in matrix)
    columns, rows = x * a + y * b + c, x * d + y * e + f
    columns, rows = (columns + (0.5 * width - 0.5)).round_(), (rows + (0.5 * height - 0.5)).round_()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    places = (rows.clamp_(0, height - 1) * width + columns.clamp_(0, width - 1)).long().expand(m, height, width)
    taken = images.flatten(2).gather(2, places.reshape(m, 1, -1).expand(-1, images.shape[1], -1)).view(images.shape)
    return taken * inside[:, None]


def _shear_x(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    shear = signs * (0.3 * strength)
    return _move(images, (1.0, shear, shear * (0.5 * images.shape[2]), 0.0, 1.0, 0.0))


def _shear_y(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    shear = signs * (0.3 * strength)
    return _move(images, (1.0, 0.0, 0.0, shear, 1.0, shear * (0.5 * images.shape[3])))


def _translate_x(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    return _move(images, (1.0, 0.0, -signs * int(150 / 331 * images.shape[3] * strength), 0.0, 1.0, 0.0))


def _translate_y(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    return _move(images, (1.0, 0.0, 0.0, 0.0, 1.0, -signs * int(150 / 331 * images.shape[2] * strength)))


def _rotate(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    angle = numpy.deg2rad(30 * strength)
    cosine, sine = float(numpy.cos(angle)), signs * float(numpy.sin(angle))
    return _move(images, (cosine, -sine, 0.0, sine, cosine, 0.0))


def _blending(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def blend(images: Tensor, strength: float, signs: Tensor) -> Tensor:
        factor = (1 + signs * (0.9 * strength)).view(-1, 1, 1, 1)
        return function(images.float().div_(255), factor).mul_(255).round_().byte()

    return blend


def _posterize(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    bits = 8 - round(4 * strength)
    return images & (256 - (1 << (8 - bits)))


def _solarize(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    return torch.where(images >= 255 * (1 - strength), 255 - images, images)


def _autocontrast(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    low, high = (edge(images, (2, 3)).float()[..., None, None] for edge in (torch.amin, torch.amax))
    is_flat = high == low
    scale = torch.where(is_flat, 1.0, 255 / torch.where(is_flat, 1.0, high - low))
    return ((images - torch.where(is_flat, 0.0, low)) * scale).clamp_(0, 255).byte()


def _equalize(images: Tensor, strength: float, signs: Tensor) -> Tensor:
    """Each channel's histogram made flat, as in PIL."""
    m, channels, height, width = images.shape
    planes = images.reshape(m * channels, -1).long()
    counts = planes.new_zeros(m * channels, 256).scatter_add_(1, planes, torch.ones_like(planes))
    last = 255 - (counts.flip(1) > 0).int().argmax(1, keepdim=True)
    step = (height * width - counts.gather(1, last)) // 255
    table = ((counts.cumsum(1) - counts) + step // 2) // step.clamp(min=1)
    table = torch.where(step == 0, torch.arange(256, device=images.device), table.clamp_(0, 255))
    return table.gather(1, planes).byte().view(images.shape)


OPERATIONS: dict[str, Operation | None] = {
    "identity": None,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": _rotate,
    "brightness": _blending(colour.brightness),
    "color": _blending(colour.saturation),
    "contrast": _blending(colour.contrast),
    "sharpness": _blending(colour.sharpness),
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
