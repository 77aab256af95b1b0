"""Schedules that decay smoothly over the run."""

from __future__ import annotations

import math

from accel_cli.schedule.base import Schedule, in_steps

ROUNDING = 1e-9
"""A step so near the end of a cycle begins the next one."""


def share_done(step: int, first: int, steps: int) -> float:
    """Share of the steps after the warm-up that lie behind ``step``, 0 ... 1; the end is one past the last step."""
    return min((step - first) / (steps - first), 1.0) if steps > first else 0.0


class Linear(Schedule):
    """A straight line; as torch's LinearLR."""

    def shape(self, step: int, first: int, steps: int) -> float:
        return 1.0 + (self.config.final - 1.0) * share_done(step, first, steps)


class Polynomial(Schedule):
    """A power of what is left of the run; as torch's PolynomialLR, which ends at 0."""

    def shape(self, step: int, first: int, steps: int) -> float:
        left: float = (1.0 - share_done(step, first, steps)) ** self.config.power
        return float(self.config.final + (1.0 - self.config.final) * left)


class Cosine(Schedule):
    """Half a cosine, as torch's CosineAnnealingLR; over several cycles as CosineAnnealingWarmRestarts.

    Loshchilov and Hutter 2017, arXiv:1608.03983. The cycles fill the run after the warm-up: the first has
    (growth - 1) / (growth ** cycles - 1) of it.
    """

    def shape(self, step: int, first: int, steps: int) -> float:
        falling = (1.0 + math.cos(math.pi * self._share_of_cycle(step, first, steps))) / 2.0
        return float(self.config.final + (1.0 - self.config.final) * falling)

    def _share_of_cycle(self, step: int, first: int, steps: int) -> float:
        lengths = [self.config.cycle_growth**cycle for cycle in range(self.config.cycles)]
        place = share_done(step, first, steps) * sum(lengths)
        for length in lengths[:-1]:
            if place < length - ROUNDING * length:
                return max(place, 0.0) / length
            place -= length
        return max(place, 0.0) / lengths[-1]


class Exponential(Schedule):
    """The same relative decay at every step; as ExponentialLR with gamma = final ** (1 / steps)."""

    def shape(self, step: int, first: int, steps: int) -> float:
        return self.config.final ** share_done(step, first, steps)


class InverseSqrt(Schedule):
    """Vaswani et al. 2017, arXiv:1706.03762, section 5.3, where the timescale is the warm-up.

    The paper counts steps from 1: with a warm-up of w its factor sqrt(w / step) is this one at step w and later.
    """

    def shape(self, step: int, first: int, steps: int) -> float:
        timescale = max(in_steps(self.config.timescale, steps), 1)
        return math.sqrt(timescale / (timescale + step - first))
