"""How much of a metric may be lost, and whether that much was: over seeds, in pairs, beyond noise or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from accel_cli.analysis.statistics import Interval, student
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem

KEPT, BROKEN, CANNOT_TELL = "kept", "broken", "cannot tell"
LOSS_ALLOWED, SHARE_ALLOWED = 0.003, 0.01
"""Where nothing is said: of a metric that should rise, such as an accuracy; of others this share of its value."""
LEVEL = 0.95
"""Of the interval of a difference: one of its ends errs in one of forty, and it is looked at twice."""


@dataclass(frozen=True)
class Floor:
    """``metric`` as a user sees it, such as validation_accuracy; ``more`` whether more of it is better."""

    metric: str
    loss_allowed: float
    more: bool

    def found_in(self, known: Iterable[str]) -> Floor:
        """By the name that the run's metrics have. Raises ConfigError where it is none of them."""
        names = sorted(known)
        full = self.metric if self.metric in names else f"validation_{self.metric}"
        if full not in names:
            why = f"no such metric; there are: {', '.join(names) or 'none on validation'}"
            found = nearest(self.metric, names, 1) or nearest(full, names, 1)
            near = [f"floor={name}{self.sign}{self.loss_allowed:g}" for name in found]
            raise ConfigError(Problem(f"floor={self.metric}", why, did_you_mean(near) or "try floor=none"))
        return replace(self, metric=full)

    @property
    def sign(self) -> str:
        return "-" if self.more else "+"

    def judge(self, values: Sequence[float], baseline: Sequence[float]) -> tuple[Interval, str]:
        """The mean difference from the baseline, of the same seeds, and whether the floor is kept."""
        differences = [one - other for one, other in zip(values, baseline, strict=True)]
        found = student(differences, LEVEL)
        worst, best = (found.low, found.high) if self.more else (-found.high, -found.low)
        if worst >= -self.loss_allowed:
            return found, KEPT
        return found, BROKEN if best < -self.loss_allowed else CANNOT_TELL

    def is_missed(self, found: Interval) -> bool:
        """Whether the mean itself lies below the floor."""
        return (found.value if self.more else -found.value) < -self.loss_allowed


def usual(metric: str, more: bool, known: Mapping[str, float]) -> Floor | None:
    """The floor of a run's own metric where nothing was said; None where validation has no such metric."""
    if metric not in known:
        return None
    allowed = LOSS_ALLOWED if more else SHARE_ALLOWED * abs(known[metric])
    return Floor(metric, float(f"{allowed:.3g}"), more)


def parse(word: str) -> Floor | None:
    """``floor=validation_accuracy-0.003``; with a plus for a metric that should fall; None for ``floor=none``."""
    text = word.partition("=")[2]
    if text == "none":
        return None
    found = re.fullmatch(r"([A-Za-z]\w*)([-+])(\d+(?:\.\d*)?(?:[eE]-?\d+)?|\.\d+)", text)
    if not found:
        fix = "write METRIC-AMOUNT, such as floor=validation_accuracy-0.003, or floor=none"
        raise ConfigError(Problem(word, "says no metric and how much of it may be lost", fix))
    metric, sign, amount = found.groups()
    if metric.startswith("test_"):
        fix = f"try floor={text.replace('test_', 'validation_', 1)}"
        raise ConfigError(Problem(word, "the test split is read once, at the end: whoever chooses by it, fits it", fix))
    if "loss" in metric and sign == "-":
        raise ConfigError(Problem(word, "a loss that falls is no worse", f"try floor={metric}+{amount}"))
    return Floor(metric, float(amount), sign == "-")
