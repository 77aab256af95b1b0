"""Draws from Beta(alpha, alpha), by its inverse distribution function."""

from __future__ import annotations

from functools import cache

import numpy

from accel_cli.augment.draws import Floats

QUANTILES = 1 << 16
GRID = 1 << 14


@cache
def quantiles(alpha: float) -> Floats:
    """float32 [QUANTILES]: the values that Beta(alpha, alpha) stays below with probabilities (i + 1/2) / QUANTILES.

    A table, looked up by a uniform draw, gives every sample the same bits in any batch. Below 1/2 the density is
    integrated over v = x ** power, which has no pole at x = 0; the other half is the mirror image.
    """
    power = min(alpha, 1.0)
    v = numpy.linspace(0.0, 0.5**power, GRID + 1)
    x = v ** (1 / power)
    density = x ** (alpha - power) * (1 - x) ** (alpha - 1)
    below = numpy.concatenate([[0.0], numpy.cumsum((density[1:] + density[:-1]) / 2)])
    half = (numpy.arange(QUANTILES // 2) + 0.5) / QUANTILES
    lower = numpy.interp(half, below / below[-1] / 2, v) ** (1 / power)
    return numpy.concatenate([lower, (1 - lower)[::-1]]).astype(numpy.float32)
