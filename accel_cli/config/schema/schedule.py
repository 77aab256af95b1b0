"""Schedule: the factor on the learning rate, step by step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from accel_cli.config.schema.base import Entry, Option


def _steps_or_share(value: int | float) -> int | float:
    if value < 0 or (isinstance(value, float) and value >= 1):
        raise ValueError("is a whole number of steps, or a share of the run below 1 (0.05)")
    return value


def _above_zero(value: int | float) -> int | float:
    if value <= 0:
        raise ValueError("is above 0")
    return value


StepsOrShare = Annotated[int | float, AfterValidator(_steps_or_share)]
"""A whole number counts steps, a fraction is a share of the run's steps."""
AboveZero = Annotated[StepsOrShare, AfterValidator(_above_zero)]
Factor = Annotated[float, Field(ge=0, le=1)]


class Constant(Option):
    """The same learning rate throughout, after the warm-up."""

    warmup: StepsOrShare = Field(description="steps, or share of the run, of linear rise from 1/warmup to full rate")


class Step(Constant):
    """The rate is multiplied by gamma every so many steps."""

    every: AboveZero = Field(description="steps, or share of the run, between drops")
    gamma: float = Field(gt=0, le=1, description="factor of one drop")


class MultiStep(Constant):
    """The rate is multiplied by gamma at each milestone."""

    milestones: list[AboveZero] = Field(description="steps, or shares of the run, at which it drops")
    gamma: float = Field(gt=0, le=1, description="factor of one drop")


class Linear(Constant):
    """A straight line from full rate to the final factor."""

    final: Factor = Field(description="factor at the end of the run")


class Cosine(Constant):
    """Half a cosine from full rate to the final factor."""

    final: Factor = Field(description="factor at the end of the run")


class Exponential(Constant):
    """The same relative decay at every step, down to the final factor."""

    final: float = Field(gt=0, le=1, description="factor at the end of the run")


class OneCycle(Constant):
    """Up to full rate, then down far below the start (Smith): for short runs at high rates."""

    peak_at: float = Field(gt=0, lt=1, description="share of the run at which the rate is full")
    start_divisor: float = Field(ge=1, description="the first rate is full rate / start_divisor")
    final_divisor: float = Field(ge=1, description="the last rate is the first rate / final_divisor")
    anneal: Literal["cosine", "linear"] = Field(description="form of rise and fall")


class Plateau(Constant):
    """The rate drops when the task's validation metric stops improving."""

    factor: float = Field(gt=0, lt=1, description="factor of one drop")
    patience: int = Field(ge=0, description="evaluations without improvement that are let pass")
    min_delta: float = Field(ge=0, description="a smaller change is no improvement, in the metric's units")
    min_factor: Factor = Field(description="the factor never falls below this")


class Custom(Constant):
    """Your own function of (step, steps) that returns the factor."""

    factory: str = Field(description="package.module:name; called with args, returns a callable (step, steps) -> float")
    args: dict[str, Any] = Field(description="keyword arguments for the factory")


OPTIONS = {
    "constant": Entry(Constant, "accel_cli.schedule.base:Schedule"),
    "step": Entry(Step, "accel_cli.schedule.drops:Step"),
    "multistep": Entry(MultiStep, "accel_cli.schedule.drops:MultiStep"),
    "linear": Entry(Linear, "accel_cli.schedule.decay:Linear"),
    "cosine": Entry(Cosine, "accel_cli.schedule.decay:Cosine"),
    "exponential": Entry(Exponential, "accel_cli.schedule.decay:Exponential"),
    "onecycle": Entry(OneCycle, "accel_cli.schedule.onecycle:OneCycle"),
    "plateau": Entry(Plateau, "accel_cli.schedule.plateau:Plateau"),
    "custom": Entry(Custom, "accel_cli.schedule.custom:Custom"),
}
