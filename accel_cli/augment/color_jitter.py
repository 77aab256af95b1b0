"""Colours changed at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.augment import colour
from accel_cli.augment.base import Transform
from accel_cli.augment.draws import Draws, sent
from accel_cli.description import DataDescription


class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue, in this order, each by a uniform factor of the image's own.

    The factors are those of torchvision's ColorJitter, which also draws the order. Grey images have no saturation and
    no hue.
    """

    on_stored = True

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        colour.require_colours(self)
        kinds = ("brightness", "contrast", "saturation", "hue")
        self.kinds = tuple(kind for kind in kinds if getattr(config, kind))
        self.names = tuple(f"color_jitter.{kind}" for kind in self.kinds)

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        if not self.kinds:
            return inputs
        factors = {kind: sent(self.factor(kind, draws), inputs.device).view(-1, 1, 1, 1) for kind in self.kinds}

        def jitter(images: Tensor) -> Tensor:
            for kind, factor in factors.items():
                images = getattr(colour, kind)(images, factor)
            return images

        return colour.on_pixels(self, inputs, jitter)

    def factor(self, kind: str, draws: Draws) -> Tensor:
        """float32 [n]: of hue -limit .. limit, of the others 1 - limit .. 1 + limit, none below 0."""
        limit, place = getattr(self.config, kind), draws.uniform(f"color_jitter.{kind}")
        low, high = (-limit, limit) if kind == "hue" else (max(0.0, 1 - limit), 1 + limit)
        return torch.mul(place, high - low).add_(low)
