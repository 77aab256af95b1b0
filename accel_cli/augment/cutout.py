"""A box of each image blanked."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor

from accel_cli.augment.base import Transform
from accel_cli.augment.draws import Draws, sent
from accel_cli.description import DataDescription


class Cutout(Transform):
    """A square becomes 0, the mean; its centre is uniform over the pixels, so that part of it may lie outside.

    DeVries and Taylor 2017, arXiv:1708.04552: 16 of CIFAR-10's 32 pixels, 8 of CIFAR-100's.
    """

    names = ("cutout", "cutout.down", "cutout.right")
    in_place = True

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        _, height, width = self.require_images()
        self.side = max(1, round(config.length * min(height, width)))
        places, columns = numpy.arange(width)[:, None] - self.side // 2, numpy.arange(width)
        kept = (columns < places) | (columns >= places + self.side)
        # A row of an image keeps what one of these rows says: by the place of its box; the last keeps all.
        self._kept = torch.from_numpy(numpy.concatenate([kept, numpy.ones((1, width), bool)]).astype(numpy.float32))

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        n, _, height, width = inputs.shape
        chosen, down, right = (draws.numbers(name) for name in self.names)
        below = numpy.arange(height) - ((down * height).astype(numpy.int64) - self.side // 2)[:, None]
        is_cut = (below >= 0) & (below < self.side) & (chosen < self.config.probability)[:, None]
        rows = numpy.where(is_cut, (right * width).astype(numpy.int64)[:, None], width)
        kept = self._kept.index_select(0, torch.from_numpy(rows.reshape(-1))).view(n, 1, height, width)
        return inputs.mul_(sent(kept, inputs.device))
