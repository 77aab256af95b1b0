"""Which points a sweep tries: all of a grid, or some of it drawn at random, once each."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from accel_cli.config.axes import Parts, axes_of, grid
from accel_cli.config.compose import LARGEST_SWEEP
from accel_cli.errors import ConfigError, Problem

Row = dict[str, Any]
Point = tuple[str, ...]
"""A value for each axis, in order."""
TRIALS = 20
"""Points of a search that nobody has counted."""
TRIES = 1000
"""Draws in a row that were all there before, after which there is nothing new."""


class Search:
    """The harmless search: its points are known before the first one runs."""

    ahead = 1
    """How many points may be proposed before those that run have ended."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = list(points)
        self.most = len(points)
        """Points that there will be at most."""

    def propose(self, known: Sequence[Row]) -> Point | None:
        """A point for one more row; None where there is none."""
        return None

    def begins(self, row: Row) -> None:
        """A row's run is about to begin, or to go on."""

    def reported(self, row: Row) -> bool:
        """Hear of one more pair of step and metric in ``row["reported"]``; True asks to end the run."""
        return False

    def ended(self, row: Row) -> None:
        """Hear how a row has ended."""


def every(parts: Parts) -> Search:
    """The grid. Raises ConfigError where it has no end."""
    count = 1
    for axis in axes_of(parts):
        if axis.is_interval:
            why = "an interval has no points to try one by one"
            raise ConfigError(
                Problem(f"{axis.key}={axis.typed}", why, f"try accel sweep --search random, or {axis.key}=0.1,0.2")
            )
        count *= len(axis.values)
    if count > LARGEST_SWEEP:
        why = f"is {count:,} points, more than {LARGEST_SWEEP:,}"
        raise ConfigError(Problem("the grid", why, "try accel sweep --search random --trials 100"))
    return Search(list(grid(parts)))


def drawn(parts: Parts, trials: int, seed: int) -> Search:
    """Different points at random, the same ones for the same seed; fewer where there are no more."""
    found: dict[Point, None] = {}
    misses = number = 0
    while len(found) < trials and misses < TRIES:
        random = Random(f"{seed}-{number}")
        point = tuple(axis.draw(random) for axis in axes_of(parts))
        misses, number = misses + 1 if point in found else 0, number + 1
        found[point] = None
    return Search(list(found))


def objective(row: Mapping[str, Any]) -> float | None:
    """What a search goes by: the metric's best value on validation."""
    metric = row.get("metric") or {}
    best: float | None = metric.get("best")
    return best


def without_seed(words: Sequence[str]) -> tuple[str, ...]:
    """What a point shares with its repeats over seeds."""
    return tuple(word for word in words if not word.lstrip("+").startswith("train.seed="))


def ranked(rows: Sequence[Row], mode: str | None = None) -> list[Row]:
    """The best first; then the others, in order. Repeats over seeds stand together, and go by their mean."""
    mode = mode or next((row["metric"]["mode"] for row in rows if objective(row) is not None), "min")
    sign = -1 if mode == "max" else 1

    def value(row: Row) -> float:
        return sign * (objective(row) or 0.0)

    repeats: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if objective(row) is not None:
            repeats.setdefault(without_seed(row["point"]), []).append(row)
    groups = sorted(repeats.values(), key=lambda group: statistics.fmean(map(value, group)))
    first = [row for group in groups for row in sorted(group, key=value)]
    return [*first, *(row for row in rows if objective(row) is None)]
