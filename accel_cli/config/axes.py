"""The axes of a sweep: what may stand in one place of the command line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Axis:
    """Values of one key to choose from, or an interval to draw from; both as the command line writes values."""

    key: str
    typed: str
    """After the =."""
    values: tuple[str, ...] = ()
    low: float | None = None
    """None where there are ``values``; whole numbers where both ends are ``int``."""
    high: float | None = None
    logarithmic: bool = False

    @property
    def is_interval(self) -> bool:
        return self.low is not None

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def numbers(self) -> list[float]:
        """The values where all are numbers, else none."""
        try:
            found = [float(value) for value in self.values]
        except ValueError:
            return []
        return found if all(map(math.isfinite, found)) else []

    def draw(self, random: Random) -> str:
        """One value: each as likely as any other, or evenly over the interval, or over its logarithm."""
        if self.low is None or self.high is None:
            return random.choice(self.values)
        if self.is_whole and not self.logarithmic:
            return str(random.randint(int(self.low), int(self.high)))
        if not self.logarithmic:
            return self.written(random.uniform(self.low, self.high))
        below, above = (self.low - 0.5, self.high + 0.5) if self.is_whole else (self.low, self.high)
        return self.written(math.exp(random.uniform(math.log(below), math.log(above))))

    def written(self, number: float) -> str:
        """To five digits: more would say nothing, and be in everybody's way."""
        assert self.low is not None
        assert self.high is not None
        if not self.is_whole:
            number = float(f"{number:.5g}")
        return str(min(max(round(number) if self.is_whole else number, self.low), self.high))


Parts = Sequence[str | Axis]
"""A command line in order: words that stand as they are, and axes."""


def axes_of(parts: Parts) -> list[Axis]:
    return [part for part in parts if isinstance(part, Axis)]


def words(parts: Parts, values: Sequence[str]) -> list[str]:
    """The command line of a point, from one value for each axis."""
    left = iter(values)
    return [part if isinstance(part, str) else f"{part.key}={next(left)}" for part in parts]


def grid(parts: Parts) -> Iterator[tuple[str, ...]]:
    """Every combination of values, the last axis changing first."""
    return itertools.product(*(axis.values for axis in axes_of(parts)))
