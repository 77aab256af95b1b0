"""Sizes that grow with training: early steps are cheap, the last ones see the data whole."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from accel_cli.augment.base import Growing
from accel_cli.description import DataDescription

MULTIPLE = 4


class ProgressiveResize(Growing):
    """Images of a share of their sides at first, which then grows linearly to 1.

    Composer's Progressive Resizing: sides are multiples of 4, resized by an antialiased bilinear sampling.
    """

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        self.require_images()
        if config.delay + config.finetune > 1:
            fix = f"try augment.transforms.{config.option}.delay={round(1 - config.finetune, 6):g}"
            raise self.refuse(f"and finetune={config.finetune:g} are more than the run", fix, "delay")

    def sides(self, height: int, width: int, progress: float) -> tuple[int, int]:
        """Of the images when the share ``progress`` of the run is done."""
        config = self.config
        growing = 1 - config.delay - config.finetune
        done = min(max(progress - config.delay, 0.0) / growing, 1.0) if growing > 0 else float(progress >= config.delay)
        scale = config.initial + (1 - config.initial) * done
        if scale >= 1:
            return height, width
        return _rounded(height, scale), _rounded(width, scale)

    def grow(self, inputs: Tensor, targets: Any, progress: float) -> tuple[Tensor, Any]:
        height, width = inputs.shape[2:]
        sides = self.sides(height, width, progress)
        if sides == (height, width):
            return inputs, targets
        return functional.interpolate(inputs, sides, mode="bilinear", align_corners=False, antialias=True), targets


class SequenceLengthWarmup(Growing):
    """Windows cut after their first tokens, at lengths that grow in equal steps to the whole.

    Li, Zhang and He 2021, The stability-efficiency dilemma (arXiv:2108.06084). Tokens beyond the cut are left out:
    an epoch sees fewer of them.
    """

    def __init__(self, config: Any, description: DataDescription) -> None:
        super().__init__(config, description)
        if description.input != "tokens":
            raise self.refuse(f"cuts tokens; the inputs of this data are {description.input}", "try augment=none")
        (self.whole,) = description.input_shape
        if config.start > self.whole:
            fix = f"try augment.transforms.{config.option}.start={max(1, self.whole // 4)}"
            raise self.refuse(f"is longer than the windows, of {self.whole} tokens", fix, "start")

    def length(self, progress: float) -> int:
        """Tokens of a window when the share ``progress`` of the run is done."""
        config = self.config
        if progress >= config.share:
            return self.whole
        step = int(progress / config.share * config.sizes)
        return int(config.start + (self.whole - config.start) * step // config.sizes)

    def grow(self, inputs: Tensor, targets: Any, progress: float) -> tuple[Tensor, Any]:
        length = self.length(progress)
        if length >= inputs.shape[1]:
            return inputs, targets
        is_like = isinstance(targets, Tensor) and targets.shape == inputs.shape
        return inputs[:, :length].contiguous(), targets[:, :length].contiguous() if is_like else targets


def _rounded(side: int, scale: float) -> int:
    return min(side, max(MULTIPLE, round(side * scale / MULTIPLE) * MULTIPLE))
