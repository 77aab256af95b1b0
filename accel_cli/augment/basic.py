"""Flip, shift, rotate and scale whole batches of images, each image by its own draws."""

from __future__ import annotations

from torch import Tensor

from accel_cli.augment.base import Transform
from accel_cli.augment.crop import require_border, shift
from accel_cli.augment.draws import Draws
from accel_cli.augment.flip import mirror
from accel_cli.augment.rotate import spread, turn
from accel_cli.config.schema.augment import Basic as Config
from accel_cli.description import DataDescription


class Basic(Transform):
    """Flip with a probability; cut from a reflected border; rotate and scale about the centre in one sampling."""

    config: Config

    def __init__(self, config: Config, description: DataDescription) -> None:
        """Raise ConfigError where the inputs are not images, or the border is wider than they can reflect."""
        super().__init__(config, description)
        require_border(self, "crop", config.crop)
        self.on_stored = not (config.rotate or config.scale)
        drawn = {"flip": config.flip, "down": config.crop, "right": config.crop}
        drawn |= {"rotate": config.rotate, "scale": config.scale}
        self.names = tuple(f"basic.{name}" for name, used in drawn.items() if used)

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        config = self.config
        if config.flip:
            inputs = mirror(inputs, draws.numbers("basic.flip") < config.flip)
        if config.crop:
            inputs = shift(inputs, draws.numbers("basic.down"), draws.numbers("basic.right"), config.crop)
        if config.rotate or config.scale:
            degrees = spread(draws, "basic.rotate", config.rotate) if config.rotate else None
            inputs = turn(inputs, degrees, spread(draws, "basic.scale", config.scale) if config.scale else None)
        return inputs
