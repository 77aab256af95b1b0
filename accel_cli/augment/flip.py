"""Images mirrored left to right."""

from __future__ import annotations

from typing import Any

import numpy
from numpy.typing import NDArray
from torch import Tensor

from accel_cli.augment.base import Transform, replaced
from accel_cli.augment.draws import Draws, sent
from accel_cli.description import DataDescription


class Flip(Transform):
    """Each image with a probability, drawn anew in every epoch."""

    names = ("flip",)
    on_stored = True

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.require_images()

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        return mirror(inputs, draws.numbers("flip") < self.config.probability)


class AlternatingFlip(Transform):
    """Half of the images in even epochs, the other half in odd ones, so that any two epochs show both views.

    Jordan 2024, 94% on CIFAR-10 in 3.29 seconds on a single GPU (arXiv:2404.00498).
    """

    on_stored = True

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.require_images()

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        is_even = draws.epochs % 2 == 0
        return mirror(inputs, (draws.lasting("alternating_flip") < 0.5) == is_even)


def mirror(images: Tensor, chosen: NDArray[numpy.bool_]) -> Tensor:
    """``images`` [n, channels, height, width] with the ``chosen`` [n] mirrored left to right."""
    places = chosen.nonzero()[0]
    return replaced(images, places, images.index_select(0, sent(places, images.device)).flip(3))
