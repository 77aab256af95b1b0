"""Schedules that drop at given steps, counted from the start of the run."""

from __future__ import annotations

from accel_cli.schedule.base import Schedule, in_steps


class Step(Schedule):
    """Multiplied by gamma every so many steps; as torch's StepLR."""

    def shape(self, step: int, first: int, steps: int) -> float:
        every = max(in_steps(self.config.every, steps), 1)
        return self.config.gamma ** (step // every)


class MultiStep(Schedule):
    """Multiplied by gamma at each milestone; as torch's MultiStepLR."""

    def shape(self, step: int, first: int, steps: int) -> float:
        passed = sum(step >= max(in_steps(milestone, steps), 1) for milestone in self.config.milestones)
        return self.config.gamma**passed
