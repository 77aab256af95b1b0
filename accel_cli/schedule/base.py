"""The harmless schedule: full rate throughout; and what all share, the warm-up and a momentum that follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from accel_cli.errors import ConfigError, Problem


def in_steps(value: int | float, steps: int) -> int:
    """A whole number counts steps, a fraction is a share of the run of ``steps``."""
    return value if isinstance(value, int) else round(value * steps)


class Schedule:
    """The factor on the learning rate, a pure function of the step; also the constant schedule.

    With a warm-up of w steps, step s < w has (s + 1) / w of the factor that the schedule begins with (Goyal et
    al. 2017, arXiv:1706.02677). Schedules that decay over the run do so over the steps after the warm-up; those
    that drop at given steps count them from the start of the run. A subclass has ``shape``.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    def __call__(self, step: int, steps: int) -> float:
        """The factor for ``step``, 0 ... steps - 1, of a run of ``steps``."""
        warmup = in_steps(self.config.warmup, steps)
        if step < warmup:
            return (step + 1) / warmup * self.shape(warmup, warmup, steps)
        return self.shape(step, warmup, steps)

    def shape(self, step: int, first: int, steps: int) -> float:
        """The factor without warm-up; ``first`` is the step after the warm-up, and may be ``steps`` or more."""
        return 1.0

    def height(self, step: int, steps: int) -> float:
        """How far the rate has come from its lowest, 0, to full, 1."""
        return min(self(step, steps), 1.0)

    def momentum(self, step: int, steps: int) -> float | None:
        """Low where the rate is high (Smith 2018, arXiv:1803.09820); None where it does not follow."""
        if self.config.momentum is None:
            return None
        low, high = self.config.momentum
        return float(high + (low - high) * self.height(step, steps))

    def check(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Refuse a momentum that cannot follow: a group of an optimizer has none. Raises ConfigError."""
        if self.config.momentum is None:
            return
        if not all(group.get("betas") or group.get("momentum") for group in groups):
            where = f"schedule.momentum=[{','.join(map(str, self.config.momentum))}]"
            why = "the optimizer has parameter groups with neither betas nor a momentum above 0"
            raise ConfigError(Problem(where, why, "try schedule.momentum=null"))

    def observe(self, value: float, mode: Literal["min", "max"]) -> None:
        """Told the task's validation metric after each evaluation."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take up what ``state`` gave."""
