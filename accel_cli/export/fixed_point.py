"""Numbers of a fixed count of bits: what a value of a quantized model can be, exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fixed:
    """The integers ``low`` to ``high``, in units of 2 to the power of minus ``fraction``."""

    fraction: int
    low: int
    high: int
    rounds: bool = False
    """Whether other numbers are rounded (half to even) and saturated to these, as a quantizer does."""

    @property
    def signed(self) -> bool:
        return self.low < 0

    @property
    def width(self) -> int:
        """Bits, with the sign's; at least two, because a one-bit signed number is no number to a C++ compiler."""
        return max(2, self.high.bit_length() + self.signed, (-self.low - 1).bit_length() + 1 if self.signed else 0)

    @property
    def name(self) -> str:
        """As hls4ml spells it: all bits, those left of the point, what happens to numbers that do not fit."""
        symmetric = self.signed and self.low > -(1 << (self.width - 1))
        modes = f",RND_CONV,{'SAT_SYM' if symmetric else 'SAT'}" if self.rounds else ""
        return f"{'' if self.signed else 'u'}fixed<{self.width},{self.width - self.fraction}{modes}>"

    def relu(self) -> Fixed:
        return replace(self, low=0, high=max(0, self.high), rounds=False)

    def plus(self, other: Fixed) -> Fixed:
        """What a sum of two can be."""
        fraction = max(self.fraction, other.fraction)
        one, two = self.finer(fraction), other.finer(fraction)
        return Fixed(fraction, one.low + two.low, one.high + two.high)

    def finer(self, fraction: int) -> Fixed:
        """The same numbers in smaller units."""
        shift = fraction - self.fraction
        return Fixed(fraction, self.low << shift, self.high << shift)

    def mean(self, count: int) -> tuple[Fixed, Fixed]:
        """(sum of so many, their mean): exact where the count is a power of two, else 12 more bits of it."""
        bits = count.bit_length() - 1 if count & (count - 1) == 0 else count.bit_length() + 12
        total = Fixed(self.fraction, self.low * count, self.high * count).finer(self.fraction + bits)
        return total, self.finer(self.fraction + bits)

    def dot(self, weight: Tensor, bias: Tensor) -> Fixed:
        """What ``weight @ x + bias`` can be for any x of these: integers [n_out, n_in], [n_out] as in ``integers``.

        ``weight`` and ``bias`` are (fraction, integers) already in one unit: see ``sum_of_products``.
        """
        positive, negative = weight.clamp(min=0).sum(1), weight.clamp(max=0).sum(1)
        high = positive * self.high + negative * self.low + bias
        low = positive * self.low + negative * self.high + bias
        return Fixed(self.fraction, min(0, int(low.min())), max(0, int(high.max())))


def units(values: Tensor) -> int:
    """The smallest fraction in whose units all of ``values`` are integers; float32 of any kind has one."""
    exact = values.double().flatten()
    exact = exact[exact != 0]
    if not exact.numel():
        return 0
    mantissa, exponent = torch.frexp(exact)
    whole = (mantissa * 2**53).long()
    trailing = (whole & -whole).double().log2().long()
    return int((53 - trailing - exponent).max())


def integers(values: Tensor, fraction: int) -> Tensor:
    """``values`` as integers of that fraction (int64); they have to be."""
    return (values.double() * 2.0**fraction).round().long()
