"""A linear layer or a convolution as two thinner ones, from the singular values of its weight."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn


class Factored(nn.Module):
    """``expand(reduce(x))``: to ``rank`` numbers or channels, then to the outputs.

    No Sequential: one of like layers is taken for a list of blocks elsewhere.
    """

    def __init__(self, reduce: nn.Module, expand: nn.Module) -> None:
        super().__init__()
        self.reduce = reduce
        self.expand = expand

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.expand(self.reduce(inputs))
        return outputs


def factorable(layer: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """A subclass may compute something else of its weight; of groups each would need factors of its own."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def sides(layer: nn.Linear | nn.Conv2d) -> tuple[int, int]:
    """(outputs, inputs) of the weight as a matrix: multiply-adds of one output position are their product, and those of
    a rank r are r times their sum."""
    return layer.weight.shape[0], layer.weight[0].numel()


@torch.no_grad()
def values(layer: nn.Linear | nn.Conv2d) -> Tensor:
    """Singular values of the weight as a matrix, falling, in fp32 on the host."""
    return torch.linalg.svdvals(layer.weight.flatten(1).float().cpu())


def shaped(layer: nn.Linear | nn.Conv2d, rank: int) -> Factored:
    """Two layers of zeros of the right shapes, where the layer is, trained if it is."""
    where: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    has_bias = layer.bias is not None
    made: tuple[nn.Module, nn.Module]
    if isinstance(layer, nn.Linear):
        made = (
            nn.utils.skip_init(nn.Linear, layer.in_features, rank, bias=False, **where),
            nn.utils.skip_init(nn.Linear, rank, layer.out_features, bias=has_bias, **where),
        )
    else:
        own: dict[str, Any] = {k: getattr(layer, k) for k in ("kernel_size", "stride", "padding", "dilation")}
        own["padding_mode"] = layer.padding_mode
        made = (
            nn.utils.skip_init(nn.Conv2d, layer.in_channels, rank, bias=False, **own, **where),
            nn.utils.skip_init(nn.Conv2d, rank, layer.out_channels, kernel_size=1, bias=has_bias, **where),
        )
    for part in made:
        for parameter in part.parameters():
            nn.init.zeros_(parameter)
        part.requires_grad_(layer.weight.requires_grad).train(layer.training)
    return Factored(*made)


@torch.no_grad()
def factored(layer: nn.Linear | nn.Conv2d, rank: int) -> Factored:
    """The best approximation of this rank (Eckart and Young 1936); of a convolution to ``rank`` channels by its own
    kernel, then 1x1 (Zhang et al. 2015, arXiv:1411.4229, without their fit to data). Each factor holds a root of the
    singular values, so that both learn at the same pace."""
    made = shaped(layer, rank)
    left, singular, right = torch.linalg.svd(layer.weight.flatten(1).float().cpu(), full_matrices=False)
    root = singular[:rank].sqrt()
    inner, outer = made.reduce.weight, made.expand.weight
    assert isinstance(inner, Tensor)
    assert isinstance(outer, Tensor)
    inner.copy_((root[:, None] * right[:rank]).view(inner.shape))
    outer.copy_((left[:, :rank] * root).view(outer.shape))
    if layer.bias is not None:
        made.expand.bias.copy_(layer.bias)  # type: ignore[operator,union-attr]
    return made
