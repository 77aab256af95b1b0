"""Stopping: when a run may end before its length is up."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


class Stopping(Option):
    """Train to the stated length."""


class Early(Option):
    """Stop when a validation metric has not improved for a while."""

    metric: str = Field(description="auto (the task's own), or a name such as validation_loss")
    patience: Count = Field(description="evaluations in a row without improvement that end the run")
    min_delta: float = Field(ge=0, description="a smaller change is no improvement, in the metric's units")


class Target(Option):
    """Stop as soon as a validation metric is good enough."""

    metric: str = Field(description="auto (the task's own), or a name such as validation_accuracy")
    target: float = Field(description="the value to reach: at least it for accuracies, at most it for losses")


OPTIONS = {
    "none": Entry(Stopping, "accel_cli.stopping.base:Stopping"),
    "early": Entry(Early, "accel_cli.stopping.early:Early"),
    "target": Entry(Target, "accel_cli.stopping.target:Target"),
}
