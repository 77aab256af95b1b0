"""Images rotated and scaled about their centre."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from accel_cli.augment.base import Transform
from accel_cli.augment.draws import Draws, sent
from accel_cli.description import DataDescription


class Rotate(Transform):
    """By an angle that is uniform between two limits; what comes in at the corners is a reflection."""

    names = ("rotate",)

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.require_images()

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        return turn(inputs, spread(draws, "rotate", self.config.degrees), None)


class Scale(Transform):
    """To a size that is uniform between two limits; what comes in at the edges is a reflection."""

    names = ("scale",)

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.require_images()

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        return turn(inputs, None, spread(draws, "scale", self.config.share))


def spread(draws: Draws, name: str, limit: float) -> Tensor:
    """Uniform in -limit .. limit, float64 [n]."""
    return (draws.uniform(name).double() * 2 - 1) * limit


def turn(images: Tensor, degrees: Tensor | None, growth: Tensor | None) -> Tensor:
    """Each image [n, channels, height, width] rotated, and 1 + growth times as large: one bilinear sampling."""
    n, _, height, width = images.shape
    # float64: the last bit of a vectorised sine differs with its place in the batch; rounding cuts it off.
    angle = torch.deg2rad(torch.zeros(n, dtype=torch.float64) if degrees is None else degrees)
    size = 1.0 if growth is None else 1 + growth
    along = sent((torch.cos(angle) / size).float(), images.device).view(n, 1, 1)
    across = sent((torch.sin(angle) / size).float(), images.device).view(n, 1, 1)

    x, y = (_pixel_centres(pixels, images.device) for pixels in (width, height))
    x, y = x.view(1, 1, width), y.view(1, height, 1)
    grid = torch.stack(((x * along + y * across) * (2 / width), (y * along - x * across) * (2 / height)), dim=-1)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", padding_mode="reflection", align_corners=False)


def _pixel_centres(pixels: int, device: torch.device) -> Tensor:
    return torch.arange(pixels, device=device, dtype=torch.float32) - (pixels - 1) / 2
