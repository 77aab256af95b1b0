"""What each chosen setting bought: the set with it against the set without it, in rounds of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from accel_cli.analysis.ledger_row import break_even, facts, unmeasured
from accel_cli.analysis.measured import Measured, told
from accel_cli.analysis.statistics import CANNOT_TELL, verdict
from accel_cli.analysis.techniques import BASELINE
from accel_cli.analysis.tune_search import Set, named
from accel_cli.config.plan import Plan

STAGE = "bought"
FEWEST, MOST = 6, 24
"""Rounds: the settings were chosen by others, whose luck does not count here."""
ERROR = 0.01
"""How often an interval may miss. Larger than a ledger's, which is asked for nothing else."""


@dataclass(frozen=True)
class Bought:
    ratio: dict[str, Any] | None
    """Of the whole set to the baseline."""
    rows: list[dict[str, Any]]
    """As of a ledger, form left_out."""


def measure(
    measured: Measured,
    base: Plan,
    chosen: Set,
    plan_of: Callable[[Set], Plan],
    enough: Callable[[], bool],
    words_of: Callable[[Set], Sequence[str]],
) -> Bought:
    """Rounds until every verdict is settled, or that is ``enough``; a set whose verdict is settled leaves the stage."""
    full = named(chosen)
    without = {candidate: tuple(c for c in chosen if c is not candidate) for candidate in chosen}
    sets = {full: chosen} | {named(others): others for others in without.values() if others}
    arms = {BASELINE: base} | {name: plan_of(others) for name, others in sets.items()}
    measured.look(arms, STAGE)
    said = dict.fromkeys([BASELINE, *(named(others) for others in without.values())], CANNOT_TELL)
    for count in range(FEWEST, MOST + 1):
        still = [name for name in said if said[name] == CANNOT_TELL]
        measured.rounds(arms, STAGE, count, measured.runs([name for name in sets if name in (full, *still)]), enough)
        said |= {name: _verdict(measured, full, name) for name in still}
        if CANNOT_TELL not in said.values() or enough():
            break
    rows = [_row(measured, c.name, words_of((c,)), full, named(without[c]), said[named(without[c])]) for c in chosen]
    return Bought(told(measured.ratio(STAGE, full, error=ERROR)), rows)


def _verdict(measured: Measured, full: str, against: str) -> str:
    return verdict(measured.ratio(STAGE, full, against, ERROR), measured.floor(STAGE, ERROR))


def _row(measured: Measured, name: str, words: Sequence[str], full: str, against: str, said: str) -> dict[str, Any]:
    row = unmeasured(name, words, "left_out", against)
    if cause := measured.looks[against].cause or measured.looks[full].cause:
        return {**row, "status": "failed", "cause": cause}
    look, step = measured.looks[full], measured.step_seconds(STAGE, full)
    return {
        **row,
        **facts(look, step),
        "ratio": told(measured.ratio(STAGE, full, against, ERROR)),
        "verdict": said,
        "break_even_step": break_even(look, step, measured.looks[against], measured.step_seconds(STAGE, against)),
    }
