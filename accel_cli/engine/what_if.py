"""What a step would take under another setting, measured once a run is over, where a part of its time stands out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from accel_cli.engine import what_if_batch, what_if_data, what_if_link, what_if_optimizer
from accel_cli.engine.costs import Spent, spent
from accel_cli.engine.training import Training

ALONE: dict[str, Callable[[Training, Spent], dict[str, Any] | None]] = {
    "data": what_if_data.row,
    "optimizer": what_if_optimizer.row,
    "batch": what_if_batch.row,
}
"""Part -> what one rank finds by itself."""


def look(t: Training, step: float | None) -> list[dict[str, Any]]:
    """Rows {part, override, own, other, ...}: seconds a step of the part as it was, and under the override.

    A collective. The training is spent afterwards: weights, optimizer state and generators have moved. ``step`` is the
    mean steady step; without one, nothing is measured. What fails is left out: the run itself has succeeded.
    """
    if step is None:
        return []
    found = spent(t, step)
    rows: list[dict[str, Any]] = []
    if t.world.gather(what_if_link.asks(t, found))[0]:
        rows += what_if_link.rows(t, found)
    for part, measure in ALONE.items() if t.world.is_first else ():
        with contextlib.suppress(Exception):  # the user's own code, or too little memory
            row = measure(t, found)
            rows += [{"part": part, **row}] if row is not None else []
    return rows
