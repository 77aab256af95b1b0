"""Residual networks in their form for small images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from accel_cli.config.schema.model import ResNet as Schema
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.model.base import described, normalise, outputs, require

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: the basic block of He et al. 2015, arXiv:1512.03385."""

    def __init__(self, before: int, after: int, *, stride: int, normalisation: str):
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = normalise(normalisation, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = normalise(normalisation, after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), normalise(normalisation, after)
            )

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.relu(self.first_norm(self.first(images)))
        return functional.relu(self.second_norm(self.second(hidden)) + self.shortcut(images))


class ResNet(nn.Module):
    """images [n, channels, height, width] -> [n, count]"""

    def __init__(self, channels: int, blocks: list[int], width: int, normalisation: str, count: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), normalise(normalisation, width), nn.ReLU()
        )
        # One flat list, not a list of stages: what shards, compiles or decays by block finds all of them.
        self.blocks = nn.Sequential()
        before = width
        for stage, depth in enumerate(blocks):
            after = width * 2**stage
            for number in range(depth):
                stride = 2 if stage and not number else 1
                self.blocks.append(Block(before, after, stride=stride, normalisation=normalisation))
                before = after
        self.head = nn.Linear(before, count)
        self.apply(initialise)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))


def initialise(module: nn.Module) -> None:
    """He initialisation, and blocks that begin as their shortcut (Goyal et al. 2017, arXiv:1706.02677)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, Block):
        nn.init.zeros_(module.second_norm.weight)  # type: ignore[arg-type]


def build(config: Schema, description: DataDescription) -> nn.Module:
    """Images [n, channels, height, width] -> [n, classes or outputs].

    Raises ConfigError for other data, and for images that the stages would halve below one pixel.
    """
    require(config, description, inputs=("image",), targets=("class", "number"))
    blocks = config.blocks or BLOCKS[config.depth]
    side = min(description.input_shape[1:])
    fitting = side.bit_length()
    if len(blocks) > fitting:
        where = f"model.blocks={config.blocks}" if config.blocks else f"model.depth={config.depth}"
        why = f"{len(blocks)} stages halve the image {len(blocks) - 1} times; {described(description)} is too small"
        fewer = ",".join(map(str, blocks[:fitting]))
        raise ConfigError(Problem(where.replace(" ", ""), why, f"try model.blocks=[{fewer}]"))
    return ResNet(description.input_shape[0], blocks, config.width, config.normalisation, outputs(config, description))
