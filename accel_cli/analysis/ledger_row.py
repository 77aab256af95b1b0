"""A row of a ledger, and of what tune bought: one setting against another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from accel_cli.analysis.probes import Look
from accel_cli.analysis.statistics import CANNOT_TELL

WORTH_TELLING = 0.1
"""Seconds that are paid once, from which on it is worth telling when they have come in again."""


def unmeasured(technique: str, words: Sequence[str], form: str, against: str) -> dict[str, Any]:
    """Every key that a row has, before anything is known."""
    return {
        "technique": technique,
        "words": list(words),
        "form": form,
        "against": against,
        "status": "measured",
        "cause": "",
        "ratio": None,
        "verdict": CANNOT_TELL,
        "step_milliseconds": None,
        "samples_per_second": None,
        "peak_memory_bytes": None,
        "communication_bytes": None,
        "one_off_seconds": None,
        "break_even_step": None,
        "unequal": [],
        "metric": None,
        "seconds_to_target": None,
        "run_seconds": None,
        "runs": [],
    }


def facts(look: Look, step: float | None) -> dict[str, Any]:
    """What the first look told, and ``step``, the seconds of a step by all rounds; None where there was none."""
    batch = int(look.facts["global_batch"])
    return {
        "step_milliseconds": None if step is None else round(1e3 * step, 4),
        "samples_per_second": None if step is None else round(batch / step, 2),
        "global_batch": batch,
        "peak_memory_bytes": look.facts["peak_memory_bytes"],
        "communication_bytes": look.facts["communication_bytes"],
        "one_off_seconds": look.one_off_seconds,
    }


def break_even(look: Look, step: float | None, other: Look, other_step: float | None) -> int | None:
    """After how many steps what is paid once has come in again; None where it never does, or nothing is paid."""
    if step is None or other_step is None:
        return None
    paid = sum(look.one_off_seconds.values()) - sum(other.one_off_seconds.values())
    return math.ceil(paid / (other_step - step)) if paid > WORTH_TELLING and other_step > step else None
