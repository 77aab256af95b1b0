"""Two latencies side by side, in words: no difference is told that noise could make."""

from __future__ import annotations

from typing import Any, NamedTuple

from accel_cli.analysis.wording import NOTHING, is_finite, number


class Latency(NamedTuple):
    before: str
    after: str
    verdict: str


def compared(found: dict[str, Any] | None) -> Latency | None:
    """What ``side_by_side`` of the engine has found; None where it found nothing."""
    found = found or {}
    times, floor, taken = (found.get(key) or {} for key in ("times_quicker", "floor", "milliseconds"))
    if not is_finite(times.get("value")) or len(taken) != 2:
        return None
    before, after = (f"{number(value, 3)} ms" for value in taken.values())
    interval = f"[{number(times['low'], 3)}, {number(times['high'], 3)}]"
    if times["low"] > max(1.0, floor["high"]):
        return Latency(before, after, f"{number(times['value'], 3)} times quicker {interval}")
    if times["high"] < min(1.0, floor["low"]):
        slower = f"[{number(1 / times['high'], 3)}, {number(1 / times['low'], 3)}]"
        return Latency(before, after, f"{number(1 / times['value'], 3)} times slower {slower}")
    noise = f"the same against itself [{number(floor['low'], 3)}, {number(floor['high'], 3)}]"
    return Latency(before, after, f"cannot tell: {number(times['value'], 3)} times {interval}, {noise}")


def latency(found: dict[str, Any] | None) -> str:
    """In one line."""
    said = compared(found)
    return NOTHING if said is None else f"{said.before} to {said.after}: {said.verdict}"
