"""Numbers, durations, sizes and statuses as people read them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

NOTHING = "–"
TIME_PARTS = (
    "data", "copy", "forward", "backward", "optimizer", "communication", "evaluation", "checkpoint", "other",
)  # fmt: skip
"""The parts of ``time_share`` in summary.json, in the order of a step."""


class Status(NamedTuple):
    words: str
    tone: Literal["good", "warning", "bad", "plain"]


STATUSES = {
    "completed": Status("Completed", "good"),
    "target_reached": Status("Completed: reached its target", "good"),
    "stopped_early": Status("Stopped early: the metric no longer improved", "good"),
    "interrupted": Status("Interrupted, and saved", "warning"),
    "diverged": Status("Diverged: the loss is no longer a number", "bad"),
    "failed": Status("Failed", "bad"),
}
UNKNOWN_STATUS = Status("No summary: still running, or killed before it could write one", "warning")


def status(name: Any) -> Status:
    return UNKNOWN_STATUS if name is None else STATUSES.get(str(name), Status(str(name), "plain"))


def as_number(value: Any) -> float | None:
    """The value where it is a number (NaN and infinity too), else None; True is no number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def is_finite(value: Any) -> bool:
    return as_number(value) is not None and math.isfinite(value)


def number(value: Any, digits: int = 4) -> str:
    """Integers with thousands separators, others to ``digits`` significant digits."""
    if as_number(value) is None:
        return NOTHING if value is None else str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def duration(seconds: Any) -> str:
    if not is_finite(seconds):
        return number(seconds)
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"


def size(count: Any) -> str:
    """Bytes in binary units."""
    if not is_finite(count):
        return number(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1024
    return f"{count:.3g} TiB"


def share(value: Any) -> str:
    """A fraction as a percentage; what would round to nothing says so."""
    if not is_finite(value):
        return number(value)
    return "< 1%" if 0 < value < 0.005 else f"{value:.0%}"


def times(ratio: float) -> str:
    return f"{ratio:.2g}x" if ratio < 10 else f"{ratio:.0f}x"


def plain_name(metric: Any) -> str:
    """``validation_accuracy`` -> ``validation accuracy``."""
    return str(metric).replace("_", " ")
