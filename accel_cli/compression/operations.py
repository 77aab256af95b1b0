"""What a forward pass computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()
def multiply_adds(model: nn.Module, task: Any, batch: Any) -> int:
    """Of one sample, in matrix products, convolutions and attention; ``model`` is in evaluation mode."""
    counter = FlopCounterMode(display=False)
    with counter:
        task.forward(model, batch)
    samples = next(len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.dim())
    return int(counter.get_total_flops()) // (2 * samples)
