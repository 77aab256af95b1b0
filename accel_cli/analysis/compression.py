"""What the changes of a model bought, in words: a row each, from ``compression`` in summary.json."""

from __future__ import annotations

from typing import Any, NamedTuple

from accel_cli.analysis.latency import latency
from accel_cli.analysis.wording import NOTHING, is_finite, number, size


class Bought(NamedTuple):
    """Every cell as people read it."""

    name: str
    when: str
    metric: str
    stored: str
    operations: str
    latency: str
    training: str
    notes: tuple[str, ...]


HEADER = (
    "pass",
    "at step",
    "validation metric",
    "stored in",
    "multiply-adds",
    "latency of one sample",
    "a training step",
)


def bought(summary: dict[str, Any]) -> list[Bought]:
    rows = summary.get("compression") or []
    return [_row(row) for row in rows if isinstance(row, dict)]


def _row(row: dict[str, Any]) -> Bought:
    before, after = row.get("before") or {}, row.get("after") or {}
    undone = row.get("status") == "rolled back"
    return Bought(
        name=f"{row.get('pass')}" + (" (rolled back)" if undone else ""),
        when=number(row.get("step")),
        metric=_metric(before.get("metric"), after.get("metric"), row.get("recovered")),
        stored=f"{size(before.get('bytes'))} to {size(after.get('bytes'))}",
        operations=f"{number(before.get('multiply_adds'))} to {number(after.get('multiply_adds'))}",
        latency=latency(row.get("latency")),
        training=_training(row.get("step_milliseconds") or {}),
        notes=tuple(row.get("notes") or ()),
    )


def _metric(before: Any, after: Any, recovered: Any) -> str:
    said = f"{number(before)} to {number(after)}"
    return f"{said}, {number(recovered)} after training on" if is_finite(recovered) and recovered != after else said


def _training(found: dict[str, Any]) -> str:
    before, after = found.get("before"), found.get("after")
    return f"{number(before, 3)} to {number(after, 3)} ms" if is_finite(before) and is_finite(after) else NOTHING
