"""What each chosen setting bought: the set with it against the set without it, in rounds of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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
    """Rounds until every verdict is settled, or that is ``enough``."""
    full = named(chosen)
    without = {candidate: tuple(c for c in chosen if c is not candidate) for candidate in chosen}
    sets = {full: chosen} | {named(others): others for others in without.values() if others}
    arms = {BASELINE: base} | {name: plan_of(others) for name, others in sets.items()}
    measured.look(arms, STAGE)
    for count in range(FEWEST, MOST + 1):
        measured.rounds(arms, STAGE, count, measured.runs(list(sets)), enough)
        said = [_verdict(measured, full, named(others)) for others in without.values()]
        said.append(_verdict(measured, full, BASELINE))
        if CANNOT_TELL not in said or enough():
            break
    rows = [_row(measured, c.name, words_of((c,)), full, named(without[c])) for c in chosen]
    return Bought(told(measured.ratio(STAGE, full, error=ERROR)), rows)


def _verdict(measured: Measured, full: str, against: str) -> str:
    return verdict(measured.ratio(STAGE, full, against, ERROR), measured.floor(STAGE, ERROR))


def _row(measured: Measured, name: str, words: Sequence[str], full: str, against: str) -> dict[str, Any]:
    facts, step = measured.looks[full].facts, measured.step_seconds(STAGE, full)
    other = measured.step_seconds(STAGE, against)
    failed = measured.looks[against].cause or measured.looks[full].cause
    once, before = measured.looks[full].one_off_seconds, measured.looks[against].one_off_seconds if not failed else {}
    paid = sum(once.values()) - sum(before.values())
    pays = step is not None and other is not None and other > step and paid > 0.1
    return {
        "technique": name,
        "words": list(words),
        "form": "left_out",
        "against": against,
        "status": "failed" if failed else "measured",
        "cause": failed,
        "ratio": told(measured.ratio(STAGE, full, against, ERROR)),
        "verdict": CANNOT_TELL if failed else _verdict(measured, full, against),
        "step_milliseconds": None if step is None else round(1e3 * step, 4),
        "samples_per_second": None if not step else round(facts["global_batch"] / step, 2),
        "peak_memory_bytes": facts["peak_memory_bytes"],
        "communication_bytes": facts["communication_bytes"],
        "one_off_seconds": once,
        "break_even_step": math.ceil(paid / (other - step)) if pays else None,  # type: ignore[operator]
        "unequal": [],
        "metric": None,
        "seconds_to_target": None,
        "run_seconds": None,
        "runs": [],
    }
