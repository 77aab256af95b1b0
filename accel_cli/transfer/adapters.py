"""Linear layers and convolutions with a low-rank addition that alone is trained, and that is merged at the end."""

from __future__ import annotations

import math
import zlib
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


class AdaptedLinear(nn.Linear):
    """W x + b + scale * lora_b lora_a dropout(x); ``weight`` and ``bias`` keep their names."""

    lora_a: nn.Parameter
    """[rank, inputs]"""
    lora_b: nn.Parameter
    """[outputs, rank], 0 at first: the layer begins as it was."""
    scale: float
    dropout: float

    def forward(self, input: Tensor) -> Tensor:
        dropped = functional.dropout(input, self.dropout, self.training)
        added = functional.linear(functional.linear(dropped, self.lora_a), self.lora_b)
        return functional.linear(input, self.weight, self.bias) + self.scale * added


class AdaptedConv2d(nn.Conv2d):
    """The same of a convolution: to ``rank`` channels by its own kernel size, then 1x1 to the outputs."""

    lora_a: nn.Parameter
    """[rank, inputs, height, width]"""
    lora_b: nn.Parameter
    """[outputs, rank, 1, 1]"""
    scale: float
    dropout: float

    def forward(self, input: Tensor) -> Tensor:
        dropped = functional.dropout(input, self.dropout, self.training)
        added = functional.conv2d(self._conv_forward(dropped, self.lora_a, None), self.lora_b)
        return self._conv_forward(input, self.weight, self.bias) + self.scale * added


Adapted = AdaptedLinear | AdaptedConv2d


def adaptable(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """A subclass may compute something else of its weight, and groups share nothing that a low rank could use."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def largest_rank(layer: nn.Linear | nn.Conv2d) -> int:
    """Beyond it the addition would be of full rank."""
    return min(layer.weight.shape[0], layer.weight[0].numel())


def adapt(model: nn.Module, name: str, rank: int, alpha: float, dropout: float, seed: int = 0) -> None:
    """Put the adapted layer in the place of that name, its own parameters frozen. ``lora_a`` follows from the name and
    the seed: it is drawn as torch draws a linear layer's weight, as in the authors' code."""
    layer = model.get_submodule(name)
    assert adaptable(layer)
    weight, size = layer.weight, layer.weight[0].numel()
    adapted: Adapted
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    if isinstance(layer, nn.Linear):
        adapted = AdaptedLinear(layer.in_features, layer.out_features, device="meta")
        shapes = (rank, size), (weight.shape[0], rank)
    else:
        adapted = AdaptedConv2d(layer.in_channels, layer.out_channels, 1, device="meta")
        shapes = (rank, *weight.shape[1:]), (weight.shape[0], rank, 1, 1)
    adapted.__dict__.update({key: value for key, value in vars(layer).items() if key not in ("_parameters",)})
    adapted.weight, adapted.bias = weight, layer.bias
    drawn = torch.empty(shapes[0])
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    drawn.uniform_(-1 / math.sqrt(size), 1 / math.sqrt(size), generator=generator)
    adapted.lora_a = nn.Parameter(drawn.to(weight))
    adapted.lora_b = nn.Parameter(torch.zeros(shapes[1], dtype=weight.dtype, device=weight.device))
    adapted.scale, adapted.dropout = alpha / rank, dropout
    weight.requires_grad_(False)
    if adapted.bias is not None:
        adapted.bias.requires_grad_(False)
    model.set_submodule(name, adapted)


@torch.no_grad()
def merge(model: nn.Module, name: str) -> None:
    """Put a plain layer in the place of an adapted one, which computes the same up to rounding."""
    adapted = model.get_submodule(name)
    assert isinstance(adapted, AdaptedLinear | AdaptedConv2d)
    weight = adapted.weight
    added = adapted.lora_b.flatten(1).float() @ adapted.lora_a.flatten(1).float()
    merged = weight.float() + adapted.scale * added.view(weight.shape)
    plain: nn.Linear | nn.Conv2d
    if isinstance(adapted, nn.Linear):
        plain = nn.Linear(adapted.in_features, adapted.out_features, device="meta")
    else:
        plain = nn.Conv2d(adapted.in_channels, adapted.out_channels, 1, device="meta")
    own = {key: value for key, value in vars(adapted).items() if key not in ("_parameters", "scale", "dropout")}
    plain.__dict__.update(own)
    plain.weight, plain.bias = nn.Parameter(merged.to(weight)), adapted.bias
    model.set_submodule(name, plain)
