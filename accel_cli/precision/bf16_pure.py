"""Weights, gradients and optimizer state in bfloat16: half of the memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from accel_cli.precision.bf16 import BF16


class BF16Pure(BF16):
    """Nothing keeps the weights in fp32, so an update of less than 1/512 of a weight is lost to rounding.

    Norms stay in fp32: their weights begin at 1, where such a loss is total, and so would be that of the running
    statistics. They are a thousandth of a model.
    """

    def convert(self, model: nn.Module, micro_batch: int) -> list[str]:
        norms = {id(p) for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)}
        lowered = [p for p in model.parameters() if p.is_floating_point() and id(p) not in norms]
        for parameter in lowered:
            parameter.data = parameter.data.to(self.dtype)
        kept = sum(p.numel() for p in model.parameters() if id(p) in norms)
        stay = f"; {kept:,} of norms stay in fp32" if kept else ""
        return [f"{sum(p.numel() for p in lowered):,} weights are held in bf16{stay}"]

    def placing(self) -> AbstractContextManager[Any]:
        """Weights in bf16 and inputs in fp32 meet under autocast only."""
        return self.autocast()


def is_norm(module: nn.Module) -> bool:
    """By name, because the libraries of models have norms of their own."""
    return "Norm" in type(module).__name__
