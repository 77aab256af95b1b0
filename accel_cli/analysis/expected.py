"""What an override is expected to make of the time per sample of a whole run, from what the run itself measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from accel_cli.analysis.wording import as_number, is_finite


@dataclass(frozen=True)
class Pace:
    """Of a run at a steady pace: seconds of a step and of what comes every so many steps."""

    step: float
    batch: int
    """Samples in a step."""
    evaluation: float = 0.0
    evaluate_every: float = 1.0
    checkpoint: float = 0.0
    checkpoint_every: float = 1.0

    @staticmethod
    def of(summary: Mapping[str, Any]) -> Pace | None:
        """From summary.json; None where it does not tell."""
        costs = summary.get("costs") or {}
        step, batch = as_number(costs.get("step")), as_number(summary.get("global_batch"))
        if not step or not batch:
            return None
        held = {key: float(value) for key, value in costs.items() if is_finite(value) and value > 0}
        return Pace(**{**held, "batch": int(batch)})  # type: ignore[arg-type]

    @property
    def seconds(self) -> float:
        """Of a step, with its part of what comes between steps."""
        return self.step + self.evaluation / self.evaluate_every + self.checkpoint / self.checkpoint_every

    @property
    def per_sample(self) -> float:
        return self.seconds / self.batch

    def with_beat(self, key: str, every: float) -> Pace:
        """Where ``key`` is evaluate.every or checkpoint.every."""
        beat: dict[str, Any] = {key.replace(".", "_"): every}
        return replace(self, **beat)

    def saving(self, own: float, other: float) -> Pace:
        """Where a part of the step takes other seconds than its own."""
        return replace(self, step=max(self.step - own + other, 0.01 * self.step))

    def larger(self, times: int, step: float, *, beats: set[str]) -> Pace:
        """Where a step has ``times`` the samples; ``beats``: the keys that count epochs, and so samples."""
        cut: dict[str, Any] = {key.replace(".", "_"): getattr(self, key.replace(".", "_")) / times for key in beats}
        return replace(self, step=step, batch=self.batch * times, **cut)


def ratio(before: Pace, after: Pace) -> float:
    """Time per sample: below 1 is quicker."""
    return after.per_sample / before.per_sample
