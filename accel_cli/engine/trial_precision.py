"""What ``precision=auto`` becomes: the precision whose steps are clearly the quickest, the plain default else."""

from __future__ import annotations

from typing import Any

from accel_cli.config.decide import Decision
from accel_cli.config.facts import Facts
from accel_cli.config.machine import detect
from accel_cli.config.precision_candidates import EXACT, candidates
from accel_cli.config.rules import refusals
from accel_cli.config.run import Run
from accel_cli.engine.measured import keep, key, recall
from accel_cli.engine.trial import Pace, Trial, clearly_faster, contest, milliseconds, race, steps_within
from accel_cli.errors import ConfigError
from accel_cli.world import World

SECONDS = 8.0
"""A probe takes no longer than about this, and no more than the share below of the run."""
SHARE = 0.02
MARGIN = 0.05
"""A lower precision has to be quicker by more than this: it rounds more."""


def settle_precision(run: Run, hardware: Any, world: World) -> tuple[Run, Decision]:
    """A collective, with the same answer on every rank."""
    machine = detect()
    found = candidates(run.hardware.option, machine)
    options = [o for o in found.options if not refusals(Facts(run.with_option("precision", o), machine, ("*",)))]
    exact = run.with_option("precision", EXACT)
    if options in ([], [EXACT]):
        return _settled(run, EXACT, "; ".join(_reasons(found, options)) or "nothing else is worth timing here")
    with Trial(exact, hardware, world) as trial:
        steps, name = trial.training.steps, key(trial.training, "precision")
        known = recall(world, name)
        if known is None:
            pace = race({EXACT: trial.step}, hardware, world, 0.0)[EXACT]
    if known is None:
        whole = steps_within(run, steps, pace.seconds) * pace.seconds
        seconds = min(SECONDS, SHARE * whole)
        if seconds < pace.seconds * 10 * len(options):
            why = f"the whole run is {whole:.2g} s of steps: timing others would take longer than they could save"
            return _settled(run, EXACT, why)
        runs = {option: run.with_option("precision", option) for option in options}
        measured = contest(_buildable(runs, hardware, world), hardware, world, seconds)
        known = {option: list(pace) for option, pace in measured.items()}
        keep(world, name, known)
    paces = {option: Pace(*values) for option, values in known.items()}
    default = paces[EXACT]
    quicker = [o for o in paces if o != EXACT and clearly_faster(paces[o], default, MARGIN)]
    chosen = min(quicker, key=lambda option: paces[option].seconds, default=EXACT)
    return _settled(run, chosen, _told(paces, chosen), paces)


def _buildable(runs: dict[str, Run], hardware: Any, world: World) -> dict[str, Run]:
    """Without those that only the model refuses, such as fp8 where no matrix is large enough."""
    found = {}
    for option, run in runs.items():
        try:
            with Trial(run, hardware, world):
                found[option] = run
        except ConfigError:
            continue
    return found


def _told(paces: dict[str, Pace], chosen: str) -> str:
    default = paces[EXACT]
    others = ", ".join(
        f"{option} {milliseconds(pace.seconds)} ({default.seconds / pace.seconds:.2f}x)"
        for option, pace in paces.items()
        if option != EXACT
    )
    why = f"a step takes {milliseconds(default.seconds)} in {EXACT}, {others}"
    if chosen == EXACT:
        why += f"; not clearly quicker: {EXACT} differed from itself by {100 * default.floor:.0f}%"
    return why


def _reasons(found: Any, options: list[str]) -> list[str]:
    refused = [f"{o} is refused with the other settings" for o in found.options if o not in (EXACT, *options)]
    return [*dict.fromkeys(found.left_out.values()), *refused][:2]


def _settled(run: Run, option: str, why: str, paces: dict[str, Pace] | None = None) -> tuple[Run, Decision]:
    measurements = {"step_seconds": {o: round(p.seconds, 7) for o, p in (paces or {}).items()}} if paces else {}
    return run.with_option("precision", option), Decision("precision", option, why, measurements)
