"""From what size of matrix on fp8 is expected to pay."""

from __future__ import annotations

import math

from torch import nn

PUBLISHED = {2048 * 1024: 0.80, 8192 * 16384: 1.39}
"""Elements of a weight -> speed of its layer, forward and backward, in compiled fp8 over bf16 on an H100: the two
examples of torchao's README (torchao/float8, Performance)."""


def expected(elements: int) -> float:
    """Times the speed of bf16, between the published sizes on a logarithmic scale, and at the ends as there."""
    (small, low), (large, high) = sorted(PUBLISHED.items())
    share = math.log(elements / small) / math.log(large / small)
    return low + (high - low) * min(max(share, 0.0), 1.0)


def pays_from() -> int:
    """The least side of a square matrix from which fp8 is expected to be faster, as a multiple of 128."""
    return next(side for side in range(128, 1 << 16, 128) if expected(side**2) >= 1)


def outlook(model: nn.Module) -> tuple[float, str] | None:
    """(times the speed of bf16 that the largest linear layer is expected to reach, a line that says so); None where
    the model has none. The rest of a model gains nothing."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not layers:
        return None
    largest = max(layers, key=lambda layer: layer.in_features * layer.out_features)
    elements = largest.in_features * largest.out_features
    speed, side = expected(elements), pays_from()
    reach = f"{speed:.1f}x or less" if elements < min(PUBLISHED) else f"{speed:.1f}x"
    line = f"largest matrix {largest.out_features}x{largest.in_features}: expected {reach} the speed of bf16"
    return speed, line if speed >= 1 else f"{line}; fp8 pays from about {side}x{side} on (torchao, on an H100)"
