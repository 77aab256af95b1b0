"""Intervals hold at all times at once; verdicts say no more than they do."""

from __future__ import annotations

import math
import random

import pytest

from accel_cli.analysis.statistics import (
    CANNOT_TELL,
    HELPS,
    HURTS,
    NO_EFFECT,
    Interval,
    fewest_rounds,
    interval,
    student,
    verdict,
)

FLOOR = Interval(1.0, 0.995, 1.005)


def heavy(draw: random.Random) -> float:
    """Noise as of a shared machine: mostly small, now and then a burst, to either side alike."""
    return math.exp(draw.gauss(0, 0.3) if draw.random() < 0.1 else draw.gauss(0, 0.01))


def test_it_holds_the_median_however_long_one_looks() -> None:
    draw, missed, sequences = random.Random(1), 0, 400
    for _ in range(sequences):
        seen: list[float] = []
        for _ in range(80):
            seen.append(heavy(draw))
            found = interval(seen, 0.05)
            if not found.low <= 1.0 <= found.high:
                missed += 1
                break
    assert missed / sequences <= 0.05


def test_it_narrows_to_the_median() -> None:
    draw = random.Random(2)
    seen = [0.5 * heavy(draw) for _ in range(200)]
    found = interval(seen)
    assert 0.49 < found.low < 0.5 < found.high < 0.51
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(("rounds", "known"), [(12, False), (13, True)])
def test_it_holds_everything_until_the_thirteenth_round(rounds: int, known: bool) -> None:
    found = interval([2.0] * rounds)
    assert (rounds >= fewest_rounds()) is known
    assert math.isfinite(found.high) is known
    assert verdict(found, FLOOR) == (HURTS if known else CANNOT_TELL)


def test_none_at_all_is_none() -> None:
    assert interval([]).to_dict() == {"value": None, "low": None, "high": None}
    assert interval([1.5]).to_dict() == {"value": 1.5, "low": None, "high": None}


@pytest.mark.parametrize(
    ("low", "high", "floor", "said"),
    [
        (0.5, 0.6, FLOOR, HELPS),
        (1.02, 1.05, FLOOR, HURTS),
        (0.995, 1.004, FLOOR, NO_EFFECT),
        (0.98, 1.004, FLOOR, CANNOT_TELL),
        (1.005, 1.015, FLOOR, CANNOT_TELL),
        (0.992, 0.997, FLOOR, NO_EFFECT),
        (1.02, 1.05, Interval(1.0, 0.97, 1.03), CANNOT_TELL),
        (0.5, 0.6, Interval(1.0, 0.97, 1.03), HELPS),
    ],
)
def test_a_verdict_needs_the_whole_interval(low: float, high: float, floor: Interval, said: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high), floor) == said


def test_student() -> None:
    found = student([1.0, 2.0, 3.0])
    assert found.value == pytest.approx(2.0)
    assert found.high - found.value == pytest.approx(9.925 / math.sqrt(3), rel=1e-3)
    assert student([1.0, 2.0, 3.0], 0.95).high - 2.0 == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    assert student([1.0]) == (1.0, -math.inf, math.inf)
