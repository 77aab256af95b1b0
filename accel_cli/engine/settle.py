"""The autos that only measuring settles, one after another, each on trials under what was settled before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accel_cli.config.decide import Decision
from accel_cli.config.run import Run
from accel_cli.data.base import Report, quiet
from accel_cli.engine.trial import milliseconds
from accel_cli.engine.trial_compile import MARGIN, settle_compile
from accel_cli.engine.trial_learning_rate import find_learning_rate
from accel_cli.engine.trial_loader import asks, settle_loader
from accel_cli.engine.trial_memory import find_micro_batch
from accel_cli.engine.trial_precision import settle_precision
from accel_cli.world import World

Say = Callable[[str], None]


def settle(run: Run, hardware: Any, world: World, say: Say, progress: Report = quiet) -> tuple[Run, list[Decision]]:
    """The run without them, and what each became, with its reason; a collective, with one answer on every rank.

    What fits into memory comes first, the rate last: it is found with everything else as the run will have it. A run
    that asks for none of them pays nothing.
    """
    decisions: list[Decision] = []
    if run.train.micro_batch == "auto":
        say("looking for the largest micro-batch that fits into memory")
        run, decision = find_micro_batch(run, hardware, world)
        decisions.append(decision)
    if run.precision.option == "auto" and run.compile.option == "auto":
        say("timing precisions, eager and compiled")
        run, both = settle_together(run, hardware, world, say)
        decisions += both
    elif run.precision.option == "auto":
        say("timing precisions")
        run, decision = settle_precision(run, hardware, world)
        decisions.append(decision)
    elif run.compile.option == "auto":
        say("trying whether compiling pays")
        run, decision = settle_compile(run, hardware, world, say)
        decisions.append(decision)
    if asks(run):
        run, found = settle_loader(run, hardware, world, say)
        decisions += found
    if run.train.learning_rate == "find":
        say("looking for the learning rate: a short run of rising rates")
        run, decision = find_learning_rate(run, hardware, world, progress)
        decisions.append(decision)
    return run, decisions


def settle_together(run: Run, hardware: Any, world: World, say: Say) -> tuple[Run, list[Decision]]:
    """Precision and compiling, each of which may pay only with the other: compiled casts cost less.

    The eager precisions first; then each of them compiled, against the best so far.
    """
    eager, precision = settle_precision(run, hardware, world)
    best, compiled = settle_compile(eager, hardware, world, say)
    if "compiled" not in compiled.measurements:
        return best, [precision, compiled]
    quickest = compiled.measurements["compiled" if best.compile.option != "none" else "eager"]
    for option in precision.measurements.get("step_seconds", {}):
        if option == eager.precision.option:
            continue
        other, found = settle_compile(eager.with_option("precision", option), hardware, world, say)
        if other.compile.option != "none" and found.measurements["compiled"] < (1 - MARGIN) * quickest:
            told = f"compiled, a step takes {milliseconds(found.measurements['compiled'])} in {option}"
            why = f"{told}; without that, {milliseconds(quickest)} in {precision.value} was the best"
            precision = Decision("precision", option, why, precision.measurements)
            best, compiled, quickest = other, found, found.measurements["compiled"]
    return best, [precision, compiled]
