"""Gradients as products of two thin matrices: for which it pays, what they take to send, and their bases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def columns(shape: Sequence[int], rank: int, min_compression: float) -> int:
    """Of the thin matrices for a gradient of this shape, its first dimension against all others; 0: sent whole."""
    if len(shape) < 2:
        return 0
    n, m = shape[0], math.prod(shape[1:])
    least = min(n, m, rank)
    return least if (n + m) * least * min_compression < n * m else 0


def compressed_bytes(gradients: Sequence[Tensor], rank: int, min_compression: float) -> int:
    """Of both thin matrices where that pays, and of the whole gradient elsewhere."""
    total = 0
    for gradient in gradients:
        thin = columns(gradient.shape, rank, min_compression)
        rows = gradient.shape[0] if thin else 1
        elements = thin * (rows + gradient.numel() // rows) if thin else gradient.numel()
        total += elements * gradient.element_size()
    return total


def orthonormal(matrix: Tensor) -> Tensor:
    """A basis of the space that the columns span, [rows, columns]; where they are dependent, of one that holds it."""
    wide = torch.promote_types(matrix.dtype, torch.float32)
    return torch.linalg.qr(matrix.to(wide)).Q.to(matrix.dtype)
