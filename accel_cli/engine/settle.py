"""The autos that only measuring settles, one after another, each on trials under what was settled before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accel_cli.config.decide import Decision
from accel_cli.config.run import Run
from accel_cli.engine.trial_compile import settle_compile
from accel_cli.engine.trial_learning_rate import find_learning_rate
from accel_cli.engine.trial_memory import find_micro_batch
from accel_cli.engine.trial_precision import settle_precision
from accel_cli.world import World

Say = Callable[[str], None]


def settle(run: Run, hardware: Any, world: World, say: Say) -> tuple[Run, list[Decision]]:
    """The run without them, and what each became, with its reason; a collective, with one answer on every rank.

    What fits into memory comes first, the rate last: it is found with everything else as the run will have it. A run
    that asks for none of them pays nothing.
    """
    decisions: list[Decision] = []
    if run.train.micro_batch == "auto":
        say("looking for the largest micro-batch that fits into memory")
        run, decision = find_micro_batch(run, hardware, world)
        decisions.append(decision)
    options = run
    if options.precision.option == "auto":
        say("timing precisions")
        run, decision = settle_precision(run, hardware, world)
        decisions.append(decision)
    if options.compile.option == "auto":
        say("trying whether compiling pays")
        run, decision = settle_compile(run, hardware, world, say)
        decisions.append(decision)
        if run.compile.option != "none" and options.precision.option == "auto":
            say("timing precisions again: compiled casts cost less")
            run, again = settle_precision(run, hardware, world)
            decisions = [again if known.key == "precision" else known for known in decisions]
    if run.train.learning_rate == "find":
        say("looking for the learning rate: a short run of rising rates")
        run, decision = find_learning_rate(run, hardware, world)
        decisions.append(decision)
    return run, decisions
