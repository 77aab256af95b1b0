"""How long two ways to do the same take, side by side, and what of it is noise."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROUNDS = 15
INSIDE = (3, 11)
"""Of that many sorted ratios these two enclose their median with 96.5% (order statistics of 15)."""
TURN = 0.02
"""Seconds that one timing takes at least."""
SECONDS = 4.0
"""All timings of one change take about as long at most."""


def side_by_side(arms: Mapping[str, Callable[[], object]], synchronize: Callable[[], object]) -> dict[str, Any]:
    """Milliseconds of a call of each of two arms, and how many times quicker the second is.

    They take turns, the first with itself besides: ``floor`` is how far apart the same call was found. Both ratios have
    an interval. ``synchronize`` waits for the device.
    """
    (first_name, before), (second_name, after) = arms.items()

    def timed(call: Callable[[], object], count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            call()
        synchronize()
        return (time.perf_counter() - began) / count

    for call in (before, after) * 2:
        timed(call, 1)
    counts = {name: max(1, math.ceil(TURN / max(timed(call, 1), 1e-6))) for name, call in arms.items()}
    slowest = max(counts[name] * timed(call, 1) for name, call in arms.items())
    rounds = max(5, min(ROUNDS, int(SECONDS / (3 * slowest))))
    rows = [[timed(call, counts[name]) for name, call in (*arms.items(), (first_name, before))] for _ in range(rounds)]
    times = [1e3 * statistics.median(column) for column in zip(*rows, strict=True)]
    return {
        "milliseconds": {first_name: round(times[0], 4), second_name: round(times[1], 4)},
        "times_quicker": _with_interval([(first + again) / 2 / second for first, second, again in rows]),
        "floor": _with_interval([first / again for first, _, again in rows]),
    }


def _with_interval(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    low, high = (ordered[place] for place in INSIDE) if len(ordered) == ROUNDS else (ordered[0], ordered[-1])
    return {"value": round(statistics.median(ordered), 4), "low": round(low, 4), "high": round(high, 4)}
