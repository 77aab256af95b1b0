"""A vision transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from accel_cli.config.schema.model import ViT as Schema
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.model.base import check_heads, described, outputs, require
from accel_cli.model.block import DEVIATION, SEQUENCE_PLAN, TENSOR_PLAN, Block, initialise


class ViT(nn.Module):
    """images [n, channels, height, width] -> [n, count]

    Dosovitskiy et al. 2020, arXiv:2010.11929, with mean pooling instead of a class token
    (Beyer et al. 2022, arXiv:2205.01580).
    """

    tensor_plan = TENSOR_PLAN

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        count: int,
    ):
        super().__init__()
        patches = (shape[1] // patch) * (shape[2] // patch)
        self.position_embedding = nn.Parameter(torch.empty(patches, width))
        self.patch_embedding = nn.Conv2d(shape[0], width, patch, patch)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout=dropout, causal=False, bias=True) for _ in range(depth))
        self.sequence_plan = {**SEQUENCE_PLAN, f"blocks.{depth - 1}": "whole"}
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, count)
        initialise(self, depth)
        nn.init.normal_(self.position_embedding, std=DEVIATION)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embedding(images).flatten(2).transpose(1, 2)
        x = self.dropout(x + self.position_embedding)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x.mean(dim=1)))


def build(config: Schema, description: DataDescription) -> nn.Module:
    """Images [n, channels, height, width] -> [n, classes or outputs].

    Raises ConfigError for other data, a patch that does not divide the image, heads that do not divide the width.
    """
    require(config, description, inputs=("image",), targets=("class", "number"))
    check_heads(config.width, config.heads)
    side = math.gcd(*description.input_shape[1:])
    if side % config.patch:
        divisors = [n for n in range(1, side + 1) if side % n == 0]
        best = min(divisors, key=lambda n: (abs(n - config.patch), n))
        why = f"patches must divide {described(description)}"
        raise ConfigError(Problem(f"model.patch={config.patch}", why, f"try model.patch={best}"))
    return ViT(
        description.input_shape,
        patch=config.patch,
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        dropout=config.dropout,
        count=outputs(config, description),
    )
