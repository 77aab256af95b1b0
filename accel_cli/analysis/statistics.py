"""Intervals that hold whenever one looks, and the verdicts that follow from them."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

ERROR = 0.001
"""How often an interval may ever miss the median, over all rounds that are taken until someone stops."""
MARGIN = 0.01
"""Effects up to this share are no effect: whoever looks long enough finds some."""
HELPS, HURTS, NO_EFFECT, CANNOT_TELL = "helps", "hurts", "no effect", "cannot tell"
JEFFREYS = 0.5
"""Both parameters of the beta distribution that bets are spread by."""


class Interval(NamedTuple):
    """A ratio: its estimate, and the interval that holds it."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON knows no infinity: an end that is not known yet is None."""
        known = math.isfinite(self.high)
        numbers = {"value": self.value, "low": self.low if known else math.inf, "high": self.high}
        return {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in numbers.items()}

    def over(self, other: Interval) -> Interval:
        """The ratio of two independent ones; it is missed as often as either."""
        return Interval(self.value / other.value, self.low / other.high, self.high / other.low)


def interval(ratios: Sequence[float], error: float = ERROR) -> Interval:
    """The median of positive ratios, one a round, with an interval that holds it at all rounds at once.

    Whoever bets on signs cannot win: were the median m, each ratio would lie above m with probability 1/2, and the
    fortune of a bettor who spreads his bets over all odds (a beta mixture, Ville 1939; Howard and Ramdas 2022, arXiv
    1906.09712) would reach 1 / ``error`` with probability ``error`` at most, in all of time. The interval holds
    every m against which he has not got as far. It asks nothing of the noise but that rounds are independent: bursts
    may be as large as they like. Until the thirteenth round, at the usual error, it holds everything.
    """
    count = len(ratios)
    if not count:
        return Interval(math.nan, 0.0, math.inf)
    ordered = sorted(ratios)
    out = -1
    while out + 1 <= count / 2 and log_fortune(out + 1, count) >= math.log(1 / error):
        out += 1
    middle = statistics.median(ordered)
    if out < 0:
        return Interval(middle, 0.0, math.inf)
    return Interval(middle, ordered[out], ordered[count - 1 - out])


def fewest_rounds(error: float = ERROR) -> int:
    """That an interval which holds less than everything takes."""
    return next(count for count in itertools.count(1) if log_fortune(0, count) >= math.log(1 / error))


def log_fortune(above: int, count: int) -> float:
    """Of the bettor after ``count`` signs, ``above`` of them up, who began with 1."""

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    mixed = log_beta(above + JEFFREYS, count - above + JEFFREYS) - log_beta(JEFFREYS, JEFFREYS)
    return count * math.log(2) + mixed


def verdict(ratio: Interval, floor: Interval, margin: float = MARGIN) -> str:
    """What a ratio of times says; ``floor`` is that of the same settings to themselves.

    It helps or hurts only where all of its interval lies beyond the margin, and beyond all that the floor's holds. It
    has no effect where all of it lies within the margin. Anything else cannot be told, yet.
    """
    least, most = 1 / (1 + margin), 1 + margin
    if ratio.high < min(least, floor.low):
        return HELPS
    if ratio.low > max(most, floor.high):
        return HURTS
    return NO_EFFECT if least <= ratio.low and ratio.high <= most else CANNOT_TELL


QUANTILES = {
    0.95: (
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
        2.110, 2.101, 2.093, 2.086,
    ),
    0.99: (
        63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947, 2.921,
        2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779, 2.771, 2.763, 2.756, 2.750,
    ),
}  # fmt: skip
"""Level -> the two-sided quantiles of Student's distribution with 1, 2, ... degrees of freedom."""


def student(differences: Sequence[float], level: float = 0.99) -> Interval:
    """The mean of a fixed number of differences with its interval (Student 1908), which is infinite for one alone."""
    middle, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Interval(middle, -math.inf, math.inf)
    quantiles = QUANTILES[level]
    reach = quantiles[min(count - 1, len(quantiles)) - 1] * statistics.stdev(differences) / math.sqrt(count)
    return Interval(middle, middle - reach, middle + reach)
