"""What a forward pass computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def multiply_adds(model: nn.Module, task: Any, batch: Any) -> int:
    """Of one sample, in matrix products, convolutions and attention; ``model`` is in evaluation mode."""
    return multiply_adds_by_module(model, task, batch)[""]


@torch.no_grad()
def multiply_adds_by_module(model: nn.Module, task: Any, batch: Any) -> dict[str, int]:
    """The same for every module that computes some, by name; "" is the whole model."""
    counter = FlopCounterMode(display=False)
    with counter:
        task.forward(model, batch)
    samples = next(len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.dim())
    root = type(model).__name__
    found = {name.removeprefix(f"{root}."): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    found[""] = int(counter.get_total_flops())
    return {name: int(operations) // (2 * samples) for name, operations in found.items()}
