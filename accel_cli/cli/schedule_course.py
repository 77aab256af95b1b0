"""The course of a run's learning rate and momentum, step by step, before it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accel_cli.config.factory import grant
from accel_cli.config.parts import implementation
from accel_cli.config.plan import Plan
from accel_cli.config.run import Run
from accel_cli.config.validate import show
from accel_cli.config.work import learning_rate, steps
from accel_cli.errors import ConfigError, Problem
from accel_cli.schedule.base import in_steps

FINE = 1000
"""Parts that a run of unknown length is cut into."""
MOST_POINTS = 1000
"""Of the numbers that --json gives: all steps of a shorter run, evenly spaced ones of a longer."""


@dataclass(frozen=True)
class Course:
    """What is set at each step; the step counts from 0."""

    run: Run
    schedule: Any
    steps: int
    """Of the run; where that is unknown, the parts that it is cut into."""
    is_known: bool
    warnings: tuple[str, ...] = ()
    """What the rules say of the schedule."""

    @property
    def warmup(self) -> int:
        return in_steps(self.run.schedule.warmup, self.steps)

    def learning_rate(self, step: int) -> float:
        return float(learning_rate(self.run) * self.schedule(step, self.steps))

    def momentum(self, step: int) -> float | None:
        found: float | None = self.schedule.momentum(step, self.steps)
        return found

    def at(self, step: int) -> str:
        """The step in words."""
        return f"step {step:,}" if self.is_known else f"{100 * step / self.steps:.3g}%"

    def sampled(self, most: int = MOST_POINTS) -> list[int]:
        """At most so many steps, with the first and the last."""
        if self.steps <= most:
            return list(range(self.steps))
        return [round(place * (self.steps - 1) / (most - 1)) for place in range(most)]

    def to_dict(self) -> dict[str, Any]:
        return {
            "schedule": self.run.schedule.option,
            "steps": self.steps if self.is_known else None,
            "warmup_steps": self.warmup if self.is_known else None,
            "full_learning_rate": learning_rate(self.run),
            "notes": list(self.notes()),
            "points": [self._point(step) for step in self.sampled()],
        }

    def _point(self, step: int) -> dict[str, Any]:
        place = {"step": step} if self.is_known else {"share": step / self.steps}
        momentum = self.momentum(step)
        follows = {} if momentum is None else {"momentum": momentum}
        return {**place, "learning_rate": self.learning_rate(step), **follows}

    def notes(self) -> Iterator[str]:
        """What the drawing does not show by itself."""
        train, optimizer, schedule = self.run.train, self.run.optimizer, self.run.schedule
        if not self.is_known:
            yield (
                f"train.epochs={show(train.epochs)}: how many steps that is only the data can tell, so this is over "
                "the share of the run; train.steps=N train.epochs=null shows steps"
            )
        if train.learning_rate == "find":
            yield (
                "train.learning_rate=find will choose the full rate: "
                f"{show(optimizer.learning_rate)} is only what it starts from"
            )
        if train.learning_rate_scaling != "none":
            yield (
                f"full rate {learning_rate(self.run):.4g} = optimizer.learning_rate={show(optimizer.learning_rate)}, "
                f"scaled by train.learning_rate_scaling={train.learning_rate_scaling} "
                f"from a batch of {train.base_batch} to {train.global_batch}"
            )
        if schedule.option == "plateau":
            yield (
                f"drops follow the validation metric and are not drawn: x {show(schedule.factor)} after "
                f"{schedule.patience} evaluations without improvement, down to x {show(schedule.min_factor)}"
            )
        if schedule.momentum is not None:
            key = "momentum" if getattr(optimizer, "momentum", None) else "beta1"
            if hasattr(optimizer, key):
                yield f"schedule.momentum takes the place of optimizer.{key}={show(getattr(optimizer, key))}"
        if optimizer.option == "muon":
            yield f"AdamW's part has x {show(optimizer.adamw_rate)} of this rate"
        yield from self.warnings


def course(planned: Plan) -> Course:
    """Of a checked run. Raises ConfigError where its shape needs the number of steps, and only the data can tell.

    A schedule of the user's own is imported if the command line names it.
    """
    run = planned.run
    grant(planned.plugins)
    schedule = implementation("schedule", run.schedule)(run.schedule)
    is_known = run.train.epochs is None or run.data.train_samples is not None
    if not is_known and run.schedule.counted_steps:
        key = run.schedule.counted_steps[0]
        raise ConfigError(
            Problem(
                f"schedule.{key}={show(getattr(run.schedule, key))}",
                f"counts steps, and how many train.epochs={show(run.train.epochs)} has only the data can tell",
                "add train.steps=1000 train.epochs=null",
            )
        )
    length = steps(run, run.data.train_samples) if is_known else FINE
    warnings = tuple(line for line in planned.warnings if line.startswith("schedule."))
    return Course(run, schedule, length, is_known, warnings)
