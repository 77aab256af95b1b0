"""Schedule: the factor on the learning rate, step by step."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from accel_cli.config.schema.base import Count, Entry, Option


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
IN_STEPS = ("warmup", "every", "milestones", "timescale", "decay")
"""Keys that are of those two types."""
Factor = Annotated[float, Field(ge=0, le=1)]
Growth = Annotated[float, Field(ge=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


def _low_then_high(value: list[float] | None) -> list[float] | None:
    if value is not None and (len(value) != 2 or value[0] > value[1]):
        raise ValueError("is the lowest and the highest momentum, [0.85,0.95]")
    return value


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class Constant(Option):
    """The same learning rate throughout, after the warm-up."""

    warmup: StepsOrShare = Field(description="steps, or share of the run, of linear rise from 1/warmup to full rate")
    momentum: Annotated[list[Momentum] | None, AfterValidator(_low_then_high)] = Field(
        description="[low,high]: momentum or beta1 is low at full rate and high where the rate is low; null: stays"
    )

    @property
    def counted_steps(self) -> list[str]:
        """The keys that hold a whole number of steps, so that the schedule's shape depends on the run's length."""
        return [
            key
            for key, value in self
            if key in IN_STEPS and any(isinstance(part, int) and part > 0 for part in _parts(value))
        ]


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
    """Half a cosine from full rate to the final factor; with several cycles, warm restarts."""

    final: Factor = Field(description="factor at the end of the run, and of every cycle")
    cycles: Count = Field(lt=1000, description="times that it falls, each from full rate")
    cycle_growth: Growth = Field(description="length of a cycle as a multiple of the one before")


class Exponential(Constant):
    """The same relative decay at every step, down to the final factor."""

    final: float = Field(gt=0, le=1, description="factor at the end of the run")


class OneCycle(Constant):
    """Up to full rate, then down far below the start (Smith): for short runs at high rates."""

    peak_at: float = Field(gt=0, lt=1, description="share of the run at which the rate is full")
    start_divisor: float = Field(ge=1, description="the first rate is full rate / start_divisor")
    final_divisor: float = Field(ge=1, description="the last rate is the first rate / final_divisor")
    anneal: Literal["cosine", "linear"] = Field(description="form of rise and fall")


class Polynomial(Constant):
    """A power of the share of the run that is left, from full rate to the final factor."""

    power: float = Field(gt=0, description="1: a straight line; above: falls faster at first")
    final: Factor = Field(description="factor at the end of the run")


class InverseSqrt(Constant):
    """Falls with the root of the step, whatever the run's length (Vaswani): for language models."""

    timescale: AboveZero = Field(
        description="steps, or share of the run; after 3 of them the rate is half. The paper's is its warm-up"
    )


class WarmupStableDecay(Constant):
    """Warm-up, full rate, and a decay over the last steps only: a run that can be prolonged."""

    decay: AboveZero = Field(description="steps, or share of the run, of decay at its end")
    anneal: Literal["linear", "cosine", "1-sqrt"] = Field(description="form of the decay")
    final: Factor = Field(description="factor at the end of the run")


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
    "polynomial": Entry(Polynomial, "accel_cli.schedule.decay:Polynomial"),
    "inverse_sqrt": Entry(InverseSqrt, "accel_cli.schedule.decay:InverseSqrt"),
    "warmup_stable_decay": Entry(WarmupStableDecay, "accel_cli.schedule.stable:WarmupStableDecay"),
    "plateau": Entry(Plateau, "accel_cli.schedule.plateau:Plateau"),
    "custom": Entry(Custom, "accel_cli.schedule.custom:Custom"),
}
