"""Several views of an image at evaluation: their outputs are averaged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from accel_cli.task.batch import split

SHIFT = 1


def mean_of_views(forward: Callable[[nn.Module, Any], Tensor], model: nn.Module, batch: Any, views: str) -> Tensor:
    """The output for the images [n, channels, height, width] of a batch, averaged over ``views`` of them.

    ``none``: as they are. ``flip``: these and their mirror images. ``flip_and_shift``: half of it by ``flip``, half by
    the same of images shifted by a pixel up and left, and down and right, within a reflected border (Jordan 2024,
    arXiv:2404.00498).
    """
    if views == "none":
        return forward(model, batch)
    images, targets = split(batch)

    def both(shown: Tensor) -> Tensor:
        return (forward(model, (shown, targets)) + forward(model, (shown.flip(-1), targets))) / 2

    if views == "flip":
        return both(images)
    bordered = functional.pad(images, (SHIFT,) * 4, mode="reflect")
    shifted = bordered[..., : -2 * SHIFT, : -2 * SHIFT], bordered[..., 2 * SHIFT :, 2 * SHIFT :]
    return both(images) / 2 + (both(shifted[0]) + both(shifted[1])) / 4
