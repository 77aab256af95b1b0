"""Layers that can be cut: along which dimensions of their weight, and what else of them counts features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNEL_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
)
"""Norms that treat channels, or groups of them, apart: with a rank's channels only, they give that rank's part exactly.
SyncBatchNorm is not among them: it would average over ranks that hold other channels."""
TRANSFORMERS_LINEAR = "transformers.pytorch_utils.Conv1D"
"""A linear layer whose weight is [inputs, outputs]."""


@dataclass(frozen=True)
class Kind:
    outputs: int
    """The weight's dimension of output features."""
    inputs: int
    features: int
    """The dimension of activations on which features lie, counted from the end."""


def kind_of(module: nn.Module) -> Kind | None:
    """None where the layer is of no kind that can be cut, or computes in a way of its own."""
    forward = type(module).forward
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
        return Kind(0, 1, -1)
    for dimensions, base in enumerate(CONVOLUTIONS, start=1):
        if isinstance(module, base) and forward is base.forward and module.groups == 1:
            return Kind(0, 1, -1 - dimensions)
    if is_transposed(module):
        return Kind(1, 0, -1)
    return None


def is_transposed(module: nn.Module) -> bool:
    return f"{type(module).__module__}.{type(module).__name__}" == TRANSFORMERS_LINEAR


def treats_channels_apart(module: nn.Module) -> bool:
    return isinstance(module, CHANNEL_NORMS)


def count_of(module: nn.Module) -> str | None:
    """The attribute with which forward counts output features or groups of channels, if it does."""
    if isinstance(module, nn.GroupNorm):
        return "num_groups"
    return "nf" if is_transposed(module) else None
