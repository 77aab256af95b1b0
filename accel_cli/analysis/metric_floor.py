"""How much of a metric may be lost, and whether that much was: over seeds, in pairs, beyond noise or not."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from accel_cli.analysis.statistics import Interval
from accel_cli.errors import ConfigError, Problem

KEPT, BROKEN, CANNOT_TELL = "kept", "broken", "cannot tell"
LOSS_ALLOWED = 0.003
"""Of a fraction such as an accuracy, where nothing is said; of other metrics this share of what the baseline has, times
three."""
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086,
)  # fmt: skip
"""The 97.5% quantiles of Student's distribution with 1, 2, ... 20 degrees of freedom: one end of the interval errs in
one of forty, and it is looked at twice."""


@dataclass(frozen=True)
class Floor:
    """``metric`` as a user sees it, such as validation_accuracy; ``more`` whether more of it is better."""

    metric: str
    loss_allowed: float
    more: bool

    def judge(self, values: Sequence[float], baseline: Sequence[float]) -> tuple[Interval, str]:
        """The mean difference from the baseline, of the same seeds, and whether the floor is kept."""
        differences = [one - other for one, other in zip(values, baseline, strict=True)]
        found = mean(differences)
        worst, best = (found.low, found.high) if self.more else (-found.high, -found.low)
        if worst >= -self.loss_allowed:
            return found, KEPT
        return found, BROKEN if best < -self.loss_allowed else CANNOT_TELL

    def is_missed(self, found: Interval) -> bool:
        """Whether the mean itself lies below the floor."""
        return (found.value if self.more else -found.value) < -self.loss_allowed


def mean(differences: Sequence[float]) -> Interval:
    """The mean with its 95% interval (Student 1908), which is infinite for one difference."""
    middle, count = statistics.fmean(differences), len(differences)
    if count < 2:
        return Interval(middle, -math.inf, math.inf)
    reach = STUDENT[min(count - 1, len(STUDENT)) - 1] * statistics.stdev(differences) / math.sqrt(count)
    return Interval(middle, middle - reach, middle + reach)


def parse(word: str) -> tuple[str, float] | None:
    """``floor=validation_accuracy-0.003`` -> the metric and what may be lost of it; None for ``floor=none``.

    Of a metric that should fall, such as a loss, what may be lost is written with a plus.
    """
    text = word.partition("=")[2]
    if text == "none":
        return None
    found = re.fullmatch(r"([A-Za-z]\w*)([-+])(\d+(?:\.\d*)?(?:[eE]-?\d+)?|\.\d+)", text)
    if not found:
        fix = "write METRIC-AMOUNT, such as floor=validation_accuracy-0.003, or floor=none"
        raise ConfigError(Problem(word, "says no metric and how much of it may be lost", fix))
    if found[1].startswith("test_"):
        fix = f"try floor={text.replace('test_', 'validation_', 1)}"
        raise ConfigError(Problem(word, "the test split is read once, at the end: whoever chooses by it, fits it", fix))
    return found[1], float(found[3])
