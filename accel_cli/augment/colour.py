"""Brightness, contrast, saturation, hue and sharpness of images whose pixels lie in 0 .. 1, by a factor for each.

The functions take images [n, channels, height, width] and factors [n, 1, 1, 1], and give what torchvision's functions
of the same names do for one image. Sums are of integers: a sum of floats would depend on how the batch is cut.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accel_cli.augment.base import Transform
from accel_cli.errors import ConfigError, Problem

RED, GREEN, BLUE = 0.2989, 0.587, 0.114
STEPS = 1 << 16


def on_pixels(transform: Transform, images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of stored images as floats in 0 .. 1, stored again: uint8 is rounded.

    Raises ConfigError where they are stored in another range.
    """
    if images.dtype == torch.uint8:
        return function(images.float().div_(255)).mul_(255).round_().to(torch.uint8)
    means = transform.description.mean or ()
    if not images.is_floating_point() or any(not 0 <= mean <= 1 for mean in means):
        why = f"changes colours, stored as bytes or as floats in 0 .. 1; these are {images.dtype}"
        raise ConfigError(Problem(f"augment={transform.config.option}", why, "store images so, or try augment=basic"))
    return function(images)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    return _blend(images, mean_grey(grey(images)), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _blend(images, grey(images), factor)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """``turns`` of the colour circle, -0.5 .. 0.5."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    highest, lowest = images.amax(1), images.amin(1)
    span = highest - lowest
    divisor = torch.where(span == 0, 1.0, span)
    angle = torch.where(
        highest == red,
        (green - blue) / divisor,
        torch.where(highest == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    angle = (angle[:, None] / 6 + turns).remainder_(1.0).mul_(6)
    value, chroma = highest[:, None], span[:, None]
    # Each channel falls from the value by the chroma, as far as its own angle is away (Alvy Ray Smith 1978).
    # Made on the device: numbers from the host would make it wait.
    offsets = torch.arange(5.0, 0.0, -2.0, device=images.device).view(1, 3, 1, 1)
    place = (angle + offsets).remainder_(6.0)
    return value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Inner pixels are blended with a mean of their neighbourhood; those at the edge stay."""
    if min(images.shape[2:]) <= 2:
        return images
    inner = images[..., 1:-1, 1:-1]
    # Shifted sums instead of a convolution, whose kernel differs with the batch.
    lines = images[..., :-2] + images[..., 1:-1] + images[..., 2:]
    blurred = images.clone()
    blurred[..., 1:-1, 1:-1] = (lines[..., :-2, :] + lines[..., 1:-1, :] + lines[..., 2:, :] + inner * 4) / 13
    return _blend(images, blurred, factor)


def grey(images: Tensor) -> Tensor:
    """[n, 1, height, width]"""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, 1)
    return red * RED + green * GREEN + blue * BLUE


def mean_grey(greys: Tensor) -> Tensor:
    """[n, 1, 1, 1]"""
    total = (greys * STEPS).round_().to(torch.int64).sum((1, 2, 3), keepdim=True)
    return (total.double() / (STEPS * greys[0].numel())).float()


def require_colours(transform: Transform) -> None:
    """Raise ConfigError where images have neither one channel nor three."""
    channels = transform.require_images()[0]
    if channels not in (1, 3):
        raise transform.refuse(f"changes colours: of 1 or 3 channels, not {channels}", "try augment=basic")


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (images * factor + other * (1 - factor)).clamp_(0, 1)
