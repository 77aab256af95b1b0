"""Advice tried: the run as it was and the run with the override, short and in turns, and the ratio between them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_cli.analysis.expected import Pace
from accel_cli.analysis.statistics import Interval, interval
from accel_cli.analysis.techniques import split
from accel_cli.config.plan import Plan, plan
from accel_cli.errors import AccelError, ConfigError, Problem
from accel_cli.launch.begin import describe
from accel_cli.launch.crew import Crew

ROUNDS = 12
ERROR = 0.05
"""How often the interval may miss the median, whenever the rounds end."""
LEAST_STEPS, MOST_STEPS = 20, 1000
SECONDS = 2.0
"""About what the steps of one short run take."""
NEAR = 1.3
"""A gain within this factor of the measured one is what was expected."""
SHORT = (
    "train.epochs=null", "train.samples=null", "train.seconds=null", "export=none", "tracking=none", "stopping=none",
    "profile.enabled=false",
)  # fmt: skip
LENGTH = ("train.epochs", "train.steps", "train.samples", "stopping", "optimizer.learning_rate")
"""What changes how far a run gets, not how fast: a short run cannot show it."""
ARMS = ("as it was", "with the override")


@dataclass(frozen=True)
class Short:
    """What is run: a plan of each arm."""

    plans: dict[str, Plan]
    steps: int


def chosen(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The first row whose override changes how fast the run is."""
    words = ((row, str(row.get("override") or "")) for row in rows)
    return next((row for row, word in words if word and word.partition("=")[0] not in LENGTH), None)


def shortened(folder: Path, override: str, plugins: Sequence[str], seconds: float | None) -> Short:
    """``seconds``: of a step of the run, with its part of what comes between steps; None where it is not known.

    Raises ConfigError for a run that cannot be repeated here.
    """
    base = plan((), plugins=plugins, base=folder / "run.yaml").run
    if base.launch.most_nodes > 1:
        why = "its ranks were on several machines, and this verb starts ranks on this one only"
        fix = f"run it on all of them: accel train --run {folder} {override}"
        raise ConfigError(Problem(f"launch.nodes={base.launch.nodes}", why, fix))
    steps = LEAST_STEPS if not seconds else round(min(max(SECONDS / seconds, LEAST_STEPS), MOST_STEPS))
    words = [*SHORT, f"train.steps={steps}"]
    arms = {ARMS[0]: words, ARMS[1]: [*words, *split(override)]}
    plans = {name: plan(each, plugins=plugins, base=folder / "run.yaml") for name, each in arms.items()}
    changed = plans[ARMS[1]]
    if hasattr(changed.run.communication, "start_step"):  # its first steps are no different
        arms[ARMS[1]] += ["communication.start_step=1"]
        plans[ARMS[1]] = plan(arms[ARMS[1]], plugins=plugins, base=folder / "run.yaml")
    return Short(plans, steps)


def measure(
    crew: Crew, short: Short, folder: Path, expected: float | None, budget: float, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Arm -> seconds per sample at a steady pace, by round.

    Rounds end when it is settled whether the expectation holds, or ``budget`` seconds are spent. Both arms take turns,
    forward and backward (ABBA). Raises AccelError where a run fails; its folder is kept.
    """
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    began = time.monotonic()
    for number in range(ROUNDS):
        for name in ARMS if number % 2 == 0 else ARMS[::-1]:
            seconds = _run(crew, short.plans[name], folder / f"{number}-{ARMS.index(name)}", name)
            if seconds is None:
                return found
            found[name].append(seconds)
        one, other = (found[name][-1] for name in ARMS)
        say(f"round {number + 1} of {ROUNDS}: {other / one:.3g} times the time")
        if judged(ratios_of(found), expected)[1] is not None:
            break
        if time.monotonic() - began > budget * (number + 1) / (number + 2):  # another one would be too late
            break
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _run(crew: Crew, planned: Plan, folder: Path, name: str) -> float | None:
    """Seconds per sample; None where a signal ends it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    describe(folder, planned, ("train",))
    outcome = crew.train(folder, planned, started=time.time()).outcome
    if crew.ending is not None:
        return None
    if outcome.failure is not None:
        raise AccelError(f"the run {name} failed: {outcome.failure.cause}", f"see {folder}")
    pace = Pace.of(json.loads((folder / "summary.json").read_text()))
    if pace is None:
        raise AccelError(f"the run {name} took no step that could be measured", f"see {folder}")
    return pace.per_sample


def judged(ratios: Sequence[float], expected: float | None) -> tuple[Interval, bool | None]:
    """(the measured ratio, whether it is within a factor of 1.3 of the expected one, or None: it cannot tell)"""
    found = interval(ratios, ERROR)
    if expected is None:
        return found, None
    low, high = expected / NEAR, expected * NEAR
    if low <= found.low and found.high <= high:
        return found, True
    return found, False if found.high < low or found.low > high else None


def result(samples: dict[str, list[float]], expected: float | None) -> dict[str, Any]:
    """``measured`` {value, low, high}, ``factor`` between that and ``expected``, and ``held``; None for the unknown."""
    ratios = ratios_of(samples)
    found, held = judged(ratios, expected)
    if not ratios:
        return {"measured": None, "factor": None, "held": None, "rounds": 0, "samples": samples}
    factor = None if expected is None else round(max(expected / found.value, found.value / expected), 3)
    return {"measured": found.to_dict(), "factor": factor, "held": held, "rounds": len(ratios), "samples": samples}


def ratios_of(samples: dict[str, list[float]]) -> list[float]:
    return [other / one for one, other in zip(*(samples[name] for name in ARMS), strict=False)]
