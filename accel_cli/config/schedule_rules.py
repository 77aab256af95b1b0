"""Rules about the learning rate's course, and the momentum that may follow it."""

from __future__ import annotations

import math

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.validate import show

AVERAGES_BY_ITSELF = ("schedule_free",)
"""Optimizers whose beta1 is no momentum, but belongs to their average of the weights."""


def evaluations(facts: Facts) -> float:
    """Evaluations before the end of the run, as far as the length says; infinite where only the data can tell."""
    train, every = facts.run.train, facts.run.evaluate.every
    if every == "epoch":
        return math.inf if train.epochs is None else math.ceil(train.epochs)
    steps = facts.steps
    return math.inf if steps is None else steps // every


def waits_too_long(facts: Facts, part: str, least: int) -> bool:
    return len(facts.lengths) == 1 and getattr(facts.run, part).patience + least > evaluations(facts)


def _first_drop(facts: Facts) -> float:
    """The step, or share of the run, of the first drop of a schedule that has drops."""
    schedule = facts.run.schedule
    milestones = [schedule.every] if schedule.option == "step" else schedule.milestones
    return min(milestones, default=math.inf)


def _drops(facts: Facts) -> str:
    return {"step": "every", "multistep": "milestones"}.get(facts.run.schedule.option, "")


def _is_never_stable(facts: Facts) -> bool:
    schedule = facts.run.schedule
    if schedule.option != "warmup_stable_decay":
        return False
    steps = facts.steps or math.inf
    return sum(part if isinstance(part, float) else part / steps for part in (schedule.warmup, schedule.decay)) >= 1


def _has_no_momentum(facts: Facts) -> bool:
    optimizer = facts.run.optimizer
    if facts.run.schedule.momentum is None or optimizer.option == "custom":
        return False
    if optimizer.option in AVERAGES_BY_ITSELF:
        return True
    return not (getattr(optimizer, "beta1", None) or getattr(optimizer, "momentum", None))


def _momentum_fix(facts: Facts) -> str:
    has_key = hasattr(facts.run.optimizer, "momentum")
    return ("try optimizer.momentum=0.9 or " if has_key else "try ") + "schedule.momentum=null"


SCHEDULE_RULES: tuple[Rule, ...] = (
    Rule(
        "plateau-in-time", "warn", "schedule=plateau needs more evaluations than its patience",
        lambda f: f"schedule.patience={f.run.schedule.patience}",
        lambda f: f.run.schedule.option == "plateau" and waits_too_long(f, "schedule", 2),
        lambda f: f"the run has {evaluations(f)} evaluations: it ends before the rate could drop",
        "try a smaller evaluate.every, or schedule=cosine",
    ),
    Rule(
        "warm-in-time", "warn", "schedule.warmup lies within the run",
        lambda f: f"schedule.warmup={f.run.schedule.warmup}",
        lambda f: f.run.schedule.warmup >= (f.steps or math.inf),
        lambda f: f"the run has {f.steps} steps: the full learning rate is never reached",
        "try schedule.warmup=0.1",
    ),
    Rule(
        "drops-in-time", "warn", "schedule=step and multistep drop within the run",
        lambda f: f"schedule.{_drops(f)}={show(getattr(f.run.schedule, _drops(f)))}",
        lambda f: bool(_drops(f)) and _first_drop(f) >= (f.steps or math.inf),
        lambda f: "the rate never drops" + (f": the run has {f.steps} steps" if f.steps else ""),
        lambda f: "try schedule.every=0.3" if _drops(f) == "every" else "try schedule.milestones=[0.5,0.75]",
    ),
    Rule(
        "stable-in-between", "warn", "schedule=warmup_stable_decay has steps between warm-up and decay",
        lambda f: f"schedule.decay={show(f.run.schedule.decay)}",
        _is_never_stable,
        lambda f: f"with schedule.warmup={show(f.run.schedule.warmup)} it takes the whole run: no step is stable",
        "try schedule.decay=0.2",
    ),
    Rule(
        "momentum-to-follow", "refuse", "schedule.momentum moves the momentum, or beta1, that the optimizer has",
        lambda f: f"schedule.momentum={show(f.run.schedule.momentum)}",
        _has_no_momentum,
        lambda f: f"optimizer={f.run.optimizer.option} has no momentum"
        + (": optimizer.momentum=0" if hasattr(f.run.optimizer, "momentum") else " to move"),
        _momentum_fix,
    ),
)  # fmt: skip
