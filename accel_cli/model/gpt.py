"""A decoder-only transformer that predicts the next token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.config.schema.model import GPT as Schema
from accel_cli.description import DataDescription
from accel_cli.model.base import check_heads, outputs, require
from accel_cli.model.block import SEQUENCE_PLAN, TENSOR_PLAN, Block, initialise


class GPT(nn.Module):
    """tokens int64 [n, L], L up to ``length`` -> logits [n, L, vocabulary]

    ``positions`` [L] tells where the tokens stand in the window when a rank holds only a part of it.
    """

    tensor_plan = TENSOR_PLAN
    sequence_plan = {**SEQUENCE_PLAN, "norm": "whole"}

    def __init__(
        self,
        *,
        vocabulary: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float,
        weight_tying: bool,
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.position_embedding = nn.Embedding(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout=dropout, causal=True, bias=False) for _ in range(depth))
        self.norm = nn.LayerNorm(width, bias=False)
        # Tied weights are read from the embedding, not shared as a second parameter: shared ones come apart
        # in Module.to_empty and are refused by safetensors.
        self.head = None if weight_tying else nn.Linear(width, vocabulary, bias=False)
        initialise(self, depth)

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.token_embedding(tokens) + self.position_embedding(positions))
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return functional.linear(x, self.token_embedding.weight) if self.head is None else self.head(x)


def build(config: Schema, description: DataDescription) -> nn.Module:
    """Tokens [n, L] -> logits [n, L, vocabulary]. Raises ConfigError for other data, and for heads that do not fit."""
    require(config, description, inputs=("tokens",), targets=("next_token",))
    check_heads(config.width, config.heads)
    return GPT(
        vocabulary=outputs(config, description),
        length=description.input_shape[0],
        width=config.width,
        depth=config.depth,
        heads=config.heads,
        dropout=config.dropout,
        weight_tying=config.weight_tying,
    )
