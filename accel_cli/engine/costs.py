"""What a step, an evaluation and a checkpoint take: from these follows the time of the same run at any length."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from accel_cli.engine.loop import beat
from accel_cli.engine.metrics import Metrics
from accel_cli.engine.summary import steady
from accel_cli.engine.training import Training

STANDS_OUT = 0.15
"""The share of a run's time from which a part of the step stands out."""
LEAST, SHARE = 0.3, 0.01
"""Seconds, and the share of the run's time, that a measurement after the run may take: the larger of both."""


def costs(t: Training, metrics: Metrics) -> dict[str, Any]:
    """Seconds of the mean steady step, of one validation and of one checkpoint, and the steps from one to the next.

    None for what this attempt has not done. To be asked for before the test split is evaluated.
    """
    steps = steady(metrics.step_seconds)
    # A save marks its end, and after the last one the loop waits for what is still being written.
    saves = max(1, t.clock.marks["checkpoint"] - 1)
    return {
        "step": round(statistics.fmean(steps), 7) if steps else None,
        "evaluation": _each(t.clock.seconds["evaluation"], t.clock.marks["evaluation"]),
        "checkpoint": _each(t.clock.seconds["checkpoint"], saves) if t.clock.marks["checkpoint"] else None,
        "evaluate_every": beat(t, t.run.evaluate.every),
        "checkpoint_every": beat(t, t.run.checkpoint.every),
    }


def _each(seconds: float, count: int) -> float | None:
    return round(seconds / count, 7) if count else None


class Spent(NamedTuple):
    """Where the time of a run went, by the step."""

    parts: dict[str, float]
    """Phase -> seconds a step, events between steps among them."""
    step: float
    """Seconds of the mean steady step."""
    limit: float
    """Seconds that a measurement after the run may take."""

    def stands_out(self, part: str) -> bool:
        """Whether it is worth measuring another way."""
        return self.parts[part] > STANDS_OUT * sum(self.parts.values())


def spent(t: Training, step: float) -> Spent:
    """After the parts of the time have been settled."""
    seconds, steps = t.clock.seconds, max(1, t.clock.marks["optimizer"])
    limit = max(LEAST, SHARE * sum(seconds.values()))
    return Spent({phase: value / steps for phase, value in seconds.items()}, step, limit)
