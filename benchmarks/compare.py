"""Ratios of arms that take turns on one noisy machine: an interval for each, and the floor below which none counts."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

DRAWS = 4000
Sample = TypeVar("Sample")


class Ratio(NamedTuple):
    """A median, and the interval that holds it with 95%."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.3f} [{self.low:.3f}, {self.high:.3f}]"


def interleave(
    arms: dict[str, Callable[[], Sample]], rounds: int, say: Callable[[str], None] = print
) -> dict[str, list[Sample]]:
    """Every arm once a round, forward and backward in turn (ABBA), so that a drift of the machine meets all alike."""
    found: dict[str, list[Sample]] = {name: [] for name in arms}
    for number in range(rounds):
        names = list(arms) if number % 2 == 0 else list(arms)[::-1]
        for name in names:
            say(f"round {number + 1} of {rounds}: {name}")
            found[name].append(arms[name]())
    return found


def ratio(numerator: Sequence[float], denominator: Sequence[float], seed: int = 0) -> Ratio:
    """Median of the rounds' own ratios, with a percentile bootstrap over rounds (Efron 1979)."""
    each = [a / b for a, b in zip(numerator, denominator, strict=True)]
    draw = random.Random(seed)
    drawn = sorted(statistics.median(draw.choices(each, k=len(each))) for _ in range(DRAWS))
    return Ratio(statistics.median(each), drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS) - 1])


def verdict(found: Ratio, floor: Ratio, limit: float) -> str:
    """Whether a ratio is at most ``limit``; ``floor`` is the ratio of an arm to itself.

    ``cannot tell`` where the floor's interval is wider to either side than the margin of the limit over 1, or where
    the ratio's own interval holds the limit.
    """
    margin = abs(limit - 1.0)
    if max(floor.high - 1.0, 1.0 - floor.low) > margin:
        return "cannot tell"
    if found.high <= limit:
        return "holds"
    return "broken" if found.low > limit else "cannot tell"


def table(rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need; the first row is the head."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def merged(words: Sequence[str]) -> list[str]:
    """Overrides, of which the later of two for one key holds."""
    return list({word.partition("=")[0]: word for word in words}.values())
