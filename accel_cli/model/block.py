"""The pre-norm transformer block that gpt and vit are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

DEVIATION = 0.02
"""Standard deviation of the first weights: GPT-2's, and nanoGPT's."""

TENSOR_PLAN = {
    "blocks.*.attention.query": "colwise",
    "blocks.*.attention.key": "colwise",
    "blocks.*.attention.value": "colwise",
    "blocks.*.attention.project": "rowwise",
    "blocks.*.expand": "colwise",
    "blocks.*.contract": "rowwise",
}
"""How ``strategy=tensor`` cuts the matrices of a model's ``blocks``."""
SEQUENCE_PLAN = {
    "dropout": "split",
    "blocks.*.attention_norm": "sequence",
    "blocks.*.attention": "gather",
    "blocks.*.mlp_norm": "sequence",
    "blocks.*.expand": "gather",
}
"""Between them each rank keeps its part of the sequence only, if ``strategy.sequence_parallel`` says so."""


class Attention(nn.Module):
    """Self-attention, [n, length, width] -> the same; causal: a token sees itself and the ones before it.

    Query, key and value are three layers, and the heads are counted from what a layer puts out,
    so that tensor parallelism can give each rank a share of the heads without touching this file.
    """

    def __init__(self, width: int, heads: int, *, dropout: float, causal: bool, bias: bool):
        super().__init__()
        self.head_width, self.dropout, self.causal = width // heads, dropout, causal
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.project = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=self.causal)
        return self.project(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a perceptron of four times the width; each normalises its input and adds to the stream.

    [n, length, width] -> the same
    """

    def __init__(self, width: int, heads: int, *, dropout: float, causal: bool, bias: bool):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, dropout=dropout, causal=causal, bias=bias)
        self.mlp_norm = nn.LayerNorm(width, bias=bias)
        self.expand = nn.Linear(width, 4 * width, bias=bias)
        self.contract = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        return x + self.dropout(self.contract(functional.gelu(self.expand(self.mlp_norm(x)))))


@torch.no_grad()
def initialise(model: nn.Module, depth: int) -> None:
    """Normal weights and zero biases, smaller where a layer adds to the stream (Radford et al. 2019, as in nanoGPT)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            adds = name.endswith((".project", ".contract"))
            nn.init.normal_(module.weight, std=DEVIATION / (2 * depth) ** 0.5 if adds else DEVIATION)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
