"""Flip, shift, rotate and scale whole batches of images, each image by its own draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from accel_cli.augment.base import Draws, Transform
from accel_cli.config.schema.augment import Basic as Config
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem


class Basic(Transform):
    """Flip with a probability; cut from a reflected border; rotate and scale about the centre.

    A flip and a crop are one gather (what RandomCrop(size, padding, padding_mode="reflect") and
    RandomHorizontalFlip do in torchvision); rotation and scale are one bilinear sampling, reflected at the edge.
    """

    config: Config

    def __init__(self, config: Config, description: DataDescription) -> None:
        """Raise ConfigError where the inputs are not images, or the border is wider than they can reflect."""
        super().__init__(config, description)
        if description.input != "image":
            why = f"changes images; the inputs of this data are {description.input}"
            raise ConfigError(Problem("augment=basic", why, "try augment=none"))
        side = min(description.input_shape[-2:])
        if config.crop >= side:
            why = f"an image of {side} pixels reflects {side - 1} at most"
            fix = f"try augment.transforms.basic.crop={min(side - 1, max(side // 8, 0))}"
            raise ConfigError(Problem(f"augment.transforms.basic.crop={config.crop}", why, fix))

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        if self.config.flip or self.config.crop:
            images = self._flip_and_crop(images, draws)
        if self.config.rotate or self.config.scale:
            images = self._rotate_and_scale(images, draws)
        return images

    def _flip_and_crop(self, images: Tensor, draws: Draws) -> Tensor:
        n, channels, height, width = images.shape
        crop, device = self.config.crop, images.device
        columns = torch.arange(width).expand(n, width)
        if self.config.flip:
            flip = draws.uniform("basic.flip") < self.config.flip
            columns = torch.where(flip[:, None], columns.flip(1), columns)
        if not crop:
            return _take_columns(images.flatten(1, 2), columns.to(device)).view_as(images)

        down, right = (
            (draws.uniform(name) * (2 * crop + 1)).long()[:, None] - crop for name in ("basic.down", "basic.right")
        )
        rows = _reflect(torch.arange(height) + down, height)
        columns = _reflect(columns + right, width)
        first_row = torch.arange(n * channels).view(n, channels, 1) * height
        lines = (rows[:, None] + first_row).flatten().to(device)
        taken = images.reshape(-1, width).index_select(0, lines).view(n, channels * height, width)
        return _take_columns(taken, columns.to(device)).view(n, channels, height, width)

    def _rotate_and_scale(self, images: Tensor, draws: Draws) -> Tensor:
        n, _, height, width = images.shape
        # float64: the last bit of a vectorised sine differs with its place in the batch; rounding cuts it off.
        angle = (draws.uniform("basic.rotate").double() * 2 - 1) * self.config.rotate
        size = 1 + (draws.uniform("basic.scale").double() * 2 - 1) * self.config.scale
        along = (torch.cos(torch.deg2rad(angle)) / size).float().to(images.device).view(n, 1, 1)
        across = (torch.sin(torch.deg2rad(angle)) / size).float().to(images.device).view(n, 1, 1)

        x, y = (_pixel_centres(pixels, images.device) for pixels in (width, height))
        x, y = x.view(1, 1, width), y.view(1, height, 1)
        grid = torch.stack((x * along + y * across, y * along - x * across), dim=-1)
        grid = grid * torch.tensor([2 / width, 2 / height], device=images.device)
        return F.grid_sample(
            images, grid.to(images.dtype), mode="bilinear", padding_mode="reflection", align_corners=False
        )


def _take_columns(lines: Tensor, columns: Tensor) -> Tensor:
    """``lines`` [n, m, width] with the columns of image i in the order ``columns[i]`` [width]."""
    return lines.gather(2, columns[:, None].expand(lines.shape))


def _reflect(positions: Tensor, length: int) -> Tensor:
    """Positions outside [0, length) mirrored at the first and last pixel, as numpy's and torch's pad "reflect"."""
    return (length - 1) - ((length - 1) - positions.abs()).abs()


def _pixel_centres(pixels: int, device: torch.device) -> Tensor:
    return torch.arange(pixels, device=device, dtype=torch.float32) - (pixels - 1) / 2
