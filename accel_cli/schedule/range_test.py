"""The learning-rate range test: which rate a sweep of rising rates speaks for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

DIVERGED = 4.0
"""A loss of more than this many times the best has diverged, as in fastai and Lightning."""
REACH = 0.04
"""Share of the sweep that smoothing reaches over, to both sides."""
BELOW_LOWEST = 3.0
"""The rate stays this many times below the one where the loss is lowest, which is about to diverge."""
BEGUN = 0.1
"""A descent has begun when this share of it lies behind."""
ABOVE_NOISE = 6.0
"""A fall is a descent if it is this many times what noise alone leaves in the smoothed losses."""
SMALLEST = 1e-3
"""A fall by less than this share of the loss is none."""
FEWEST = 5
"""Losses from which nothing can be told if there are fewer."""


class Found(NamedTuple):
    """A rate, and the curve that speaks for it."""

    rate: float
    why: str
    smoothed: list[float]
    """The losses that were looked at, smoothed: those before divergence, at the first ``len(smoothed)`` rates."""


def sweep(low: float, high: float, count: int) -> list[float]:
    """``count`` rates from ``low`` to ``high``, each the same multiple of the one before."""
    if count == 1:
        return [low]
    return [low * (high / low) ** (index / (count - 1)) for index in range(count)]


def pick(rates: Sequence[float], losses: Sequence[float]) -> Found | None:
    """The rate at which the loss falls fastest over log(rate) (Smith 2017, arXiv:1506.01186).

    ``rates`` rise, ``losses`` are those of one step at each, and may be fewer where the sweep was ended; what
    comes after divergence is left out. The rate is at most a third of the one with the lowest loss, unless
    the whole descent lies above that. None if the loss never falls by more than its noise.
    """
    kept = before_divergence(losses)
    if len(kept) < FEWEST:
        return None
    reach = max(REACH * len(rates), 1.0)
    smoothed = smooth(kept, reach)
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__)
    start = max(range(lowest + 1), key=smoothed.__getitem__)
    fall = smoothed[start] - smoothed[lowest]
    least = max(ABOVE_NOISE * left_by_noise(kept, reach), SMALLEST * abs(smoothed[start]))
    if lowest - start < 2 or fall <= least:
        return None

    places = [math.log(rate) for rate in rates[: len(kept)]]
    slopes = {
        index: (smoothed[index + 1] - smoothed[index - 1]) / (places[index + 1] - places[index - 1])
        for index in range(start + 1, lowest)
    }
    steepest = rates[min(slopes, key=slopes.__getitem__)]
    begun = next(i for i in range(start, lowest) if smoothed[start] - smoothed[i + 1] >= BEGUN * fall) + 1
    limit = rates[lowest] / BELOW_LOWEST
    rate = min(steepest, max(limit, rates[begun]))
    why = f"the loss falls fastest at {steepest:.3g} and is lowest at {rates[lowest]:.3g}"
    if rate < steepest:
        why += ": a third of that is safer" if rate == limit else ": where the fall begins is safer"
    if len(kept) < len(losses):
        why += f"; it diverges at {rates[len(kept)]:.3g}"
    return Found(rate, why, smoothed)


def before_divergence(losses: Sequence[float]) -> Sequence[float]:
    """The losses up to the first that is no number, or whose mean with the one before it has diverged."""
    best = math.inf
    for index, loss in enumerate(losses):
        if not math.isfinite(loss):
            return losses[:index]
        mean = (loss + losses[max(index - 1, 0)]) / 2.0
        best = min(best, mean)
        above = (DIVERGED - 1.0) * (best if best > 0 else losses[0] - best)
        if mean > best + above:
            return losses[:index]
    return losses


def smooth(losses: Sequence[float], reach: float) -> list[float]:
    """Exponentially weighted means to both sides over the weights that there are: no lag, no bias at the ends."""
    before, after = _running(losses, reach), _running(losses[::-1], reach)[::-1]
    return [(b + a - x) / (v + w - 1.0) for x, (b, v), (a, w) in zip(losses, before, after, strict=True)]


def _running(losses: Sequence[float], reach: float) -> list[tuple[float, float]]:
    """For each loss, the weighted sum up to it, and of the weights; a weight falls by e over ``reach`` losses."""
    kept, total, weight, sums = math.exp(-1.0 / reach), 0.0, 0.0, []
    for loss in losses:
        total, weight = kept * total + loss, kept * weight + 1.0
        sums.append((total, weight))
    return sums


def left_by_noise(losses: Sequence[float], reach: float) -> float:
    """The standard deviation that noise from loss to loss leaves after smoothing.

    From the second differences, which a slow curve hardly has; their median, so that single spikes do not count.
    """
    bends = [abs(a - 2.0 * b + c) for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    noise = statistics.median(bends) / (0.6745 * math.sqrt(6.0))
    kept = math.exp(-1.0 / reach)
    return noise * math.sqrt((1.0 + kept**2) / (1.0 - kept**2)) * (1.0 - kept) / (1.0 + kept)
