"""Numbers of a fixed count of bits: what a value of a quantized model can be, exactly."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

MORE_BITS = 12
"""Fraction bits that a mean gets beyond those of its sum, where dividing by the count has no end."""


@dataclass(frozen=True)
class Fixed:
    """The integers ``low`` to ``high``, in units of 2 to the power of minus ``fraction``."""

    fraction: int
    low: int
    high: int
    rounds: bool = False
    """Whether other numbers are rounded (half to even) and saturated to these, as a quantizer does."""

    @classmethod
    def of(cls, fraction: int, *integers: Tensor) -> Fixed:
        """Those that hold zero and all of these."""
        return cls(
            fraction, min(0, *(int(one.min()) for one in integers)), max(0, *(int(one.max()) for one in integers))
        )

    @property
    def signed(self) -> bool:
        return self.low < 0

    @property
    def width(self) -> int:
        """Bits, with the sign's; at least two, because a signed number of one bit is none to the backends."""
        return max(2, self.high.bit_length() + self.signed, (-self.low - 1).bit_length() + 1 if self.signed else 0)

    @property
    def name(self) -> str:
        """As hls4ml spells it: all bits, those left of the point, what becomes of numbers that do not fit."""
        if not self.rounds:
            modes = ""
        elif self.signed and self.low > -(1 << (self.width - 1)):
            modes = ",RND_CONV,SAT_SYM"
        else:
            modes = ",RND_CONV,SAT"
        return f"{'' if self.signed else 'u'}fixed<{self.width},{self.width - self.fraction}{modes}>"

    def holds(self, other: Fixed) -> bool:
        """Whether a quantizer to these would leave those as they are."""
        return self.fraction == other.fraction and self.low <= other.low and other.high <= self.high

    def relu(self) -> Fixed:
        return Fixed(self.fraction, 0, max(0, self.high))

    def finer(self, bits: int) -> Fixed:
        """The same numbers in units smaller by so many bits."""
        return Fixed(self.fraction + bits, self.low << bits, self.high << bits)

    def plus(self, other: Fixed) -> Fixed:
        """What a sum of two can be."""
        fraction = max(self.fraction, other.fraction)
        one, two = self.finer(fraction - self.fraction), other.finer(fraction - other.fraction)
        return Fixed(fraction, one.low + two.low, one.high + two.high)

    def mean(self, count: int) -> tuple[Fixed, Fixed]:
        """(the sum of so many as it is divided, the mean): exact where the count is a power of two."""
        bits = (count - 1).bit_length() + (MORE_BITS if count & (count - 1) else 0)
        fine = self.finer(bits)
        return replace(fine, low=fine.low * count, high=fine.high * count), fine

    def products(self, weight: Tensor, fraction: int, bias: Tensor) -> Fixed:
        """What ``weight @ x + bias`` can be for any x of these.

        ``weight`` [n_out, n_in] are integers of ``fraction``, ``bias`` [n_out] of that and these numbers' own.
        """
        more, less = weight.clamp(min=0).sum(1), weight.clamp(max=0).sum(1)
        highest = more * self.high + less * self.low + bias
        lowest = more * self.low + less * self.high + bias
        return Fixed.of(self.fraction + fraction, lowest, highest)
