"""The arithmetic of quantization: scales, zero points, and numbers rounded to what integers stand for."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = torch.finfo(torch.float32).tiny * 2**20
"""A scale below which dividing by it overflows: that of a channel of zeros."""


def scale_of(largest: Tensor, levels: int, power_of_two: bool) -> Tensor:
    """The step with which ``levels`` of them reach ``largest`` (fp32)."""
    scale = (largest.float() / levels).clamp_min(SMALLEST)
    return next_power_of_two(scale) if power_of_two else scale


def next_power_of_two(values: Tensor) -> Tensor:
    """The smallest one that is not below; of positive numbers. Exact, which a logarithm is not."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp(torch.ones_like(values), exponent - (mantissa == 0.5).to(exponent.dtype))


def affine(low: Tensor, high: Tensor, bits: int, power_of_two: bool) -> tuple[Tensor, Tensor]:
    """Scale (fp32) and zero point (int32) with which 0 .. 2^bits - 1 cover low .. high, and zero exactly.

    Jacob et al. 2018, arXiv:1712.05877, section 2.1.
    """
    low, high = low.float().clamp_max(0), high.float().clamp_min(0)
    top = 2**bits - 1
    if power_of_two:
        half = 2 ** (bits - 1)
        signed = low < 0
        needed = torch.maximum(-low / half, high / (half - 1))
        scale = scale_of(torch.where(signed, needed, high / top), 1, True)
        return scale, torch.where(signed, half, 0).to(torch.int32)
    scale = scale_of(high - low, top, False)
    return scale, (-low / scale).round().clamp(0, top).to(torch.int32)


def fake(values: Tensor, scale: Tensor, zero_point: Tensor, bits: int) -> Tensor:
    """Rounded to what 0 .. 2^bits - 1 stand for; the gradient passes where nothing was cut (straight-through)."""
    rounded = torch.fake_quantize_per_tensor_affine(values.float(), scale, zero_point, 0, 2**bits - 1)
    return rounded.to(values.dtype)
