"""The end of a run in the terminal: its result, where the time went, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from accel_cli.analysis.compression import bought
from accel_cli.analysis.wording import (
    NOTHING,
    TIME_PARTS,
    duration,
    is_finite,
    number,
    plain_name,
    share,
    status,
)  # fmt: skip

BAR_CELLS = 24
STYLES = {"good": "bold green", "warning": "bold yellow", "bad": "bold red", "plain": "bold"}
RESUMABLE = {"interrupted", "failed", "diverged", None}
Line = tuple[str, str]


def panel(
    summary: dict[str, Any], settings: dict[str, Any], *, run: Path | str = "RUN", exported: Sequence[str] = ()
) -> RenderableType:
    """For rich: a heading in the colour of the status, then labelled lines.

    ``run`` is the run folder, to be shown; ``exported`` a line for each form that the model was exported to.
    """
    grid = Table.grid(padding=(0, 3))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in lines(summary, settings, run=run, exported=exported):
        grid.add_row(label, Text(text, style="bold" if label == "result" else ""))
    return Group(Text(_heading(summary), style=STYLES[status(summary.get("status")).tone]), grid)


def panel_text(
    summary: dict[str, Any], settings: dict[str, Any], *, run: Path | str = "RUN", exported: Sequence[str] = ()
) -> str:
    """The same in plain lines, for a pipe or a log."""
    rows = lines(summary, settings, run=run, filled="#", exported=exported)
    width = max(len(label) for label, _ in rows)
    return "\n".join([_heading(summary), *(f"  {label:<{width}}   {text}".rstrip() for label, text in rows)])


def lines(
    summary: dict[str, Any],
    settings: dict[str, Any],
    *,
    run: Path | str = "RUN",
    filled: str = "█",
    exported: Sequence[str] = (),
) -> list[Line]:
    """(label, text) pairs; a label that goes on over several lines is written once."""
    return [
        *_error(summary),
        *_result(summary),
        *_work(summary, settings),
        *_time(summary, filled),
        *_speed(summary),
        *_compression(summary),
        *(("export", text) for text in exported),
        *_advice(summary),
        *_next(summary, run),
    ]


def _heading(summary: dict[str, Any]) -> str:
    wall = summary.get("wall_seconds")
    return status(summary.get("status")).words + (f" after {duration(wall)}" if is_finite(wall) else "")


def _error(summary: dict[str, Any]) -> list[Line]:
    error = summary.get("error") or {}
    if not error.get("message"):
        return []
    where = [f"{word} {error[word]}" for word in ("rank", "step") if error.get(word) is not None]
    text = f"{error.get('type') or 'error'}: {error['message']}" + (f" ({', '.join(where)})" if where else "")
    return [("error", text), *([("try", str(error["try"]))] if error.get("try") else [])]


def _result(summary: dict[str, Any]) -> list[Line]:
    metric = summary.get("metric") or {}
    name = plain_name(metric.get("name") or "metric")
    said = []
    if metric.get("value") is not None:
        said.append(f"test {name} {number(metric['value'])}")
    if metric.get("best") is not None:
        said.append(f"best validation {name} {number(metric['best'])} at step {number(metric.get('best_step'))}")
    if summary.get("loss") is not None:
        said.append(f"train loss {number(summary['loss'])}")
    return [("result", " · ".join(said) or "none yet")]


def _work(summary: dict[str, Any], settings: dict[str, Any]) -> list[Line]:
    names = [_option(settings, group) for group in ("model", "data")]
    said = [name for name in names if name]
    said += [f"{number(summary.get('samples'))} samples in {number(summary.get('steps'))} steps"]
    said += [str(summary[key]) for key in ("device", "strategy", "precision") if summary.get(key)]
    ranks = summary.get("world_size") or 1
    return [("work", " · ".join(said) + (f" · {ranks} processes" if ranks != 1 else ""))]


def _option(settings: dict[str, Any], group: str) -> str | None:
    chosen = settings.get(group)
    return chosen.get("option") if isinstance(chosen, dict) else chosen


def _time(summary: dict[str, Any], filled: str) -> list[Line]:
    shares = summary.get("time_share") or {}
    known = [(part, shares[part]) for part in TIME_PARTS if is_finite(shares.get(part)) and shares[part] >= 0.005]
    known.sort(key=lambda pair: -pair[1])
    return [
        (
            "where the time went" if place == 0 else "",
            f"{part:<13} {share(value):>4}  {filled * max(1, round(min(value, 1) * BAR_CELLS))}",
        )
        for place, (part, value) in enumerate(known)
    ]


def _speed(summary: dict[str, Any]) -> list[Line]:
    step = summary.get("step_milliseconds") or {}
    said = []
    if is_finite(summary.get("samples_per_second")):
        said.append(f"{number(summary['samples_per_second'], 3)} samples per second")
    if is_finite(step.get("median")):
        tail = f", 95% within {number(step['p95'], 3)} ms" if is_finite(step.get("p95")) else ""
        said.append(f"median step {number(step['median'], 3)} ms{tail}")
    if is_finite(summary.get("utilisation")):
        said.append(f"{share(summary['utilisation'])} of the device's peak")
    if is_finite(summary.get("first_step_seconds")):
        said.append(f"first step after {duration(summary['first_step_seconds'])}")
    return [("speed", " · ".join(said) or NOTHING)]


def _compression(summary: dict[str, Any]) -> list[Line]:
    found: list[Line] = []
    for row in bought(summary):
        found.append((row.name, f"at step {row.when} · validation metric {row.metric}"))
        found.append(("", f"stored in {row.stored} · multiply-adds {row.operations}"))
        if row.latency != NOTHING:
            found.append(("", f"latency of one sample {row.latency}"))
        if row.training != NOTHING:
            found.append(("", f"a training step {row.training}"))
    return found


def _advice(summary: dict[str, Any]) -> list[Line]:
    rows = summary.get("advice") or []
    if not rows:
        return []
    first = rows[0]
    why = f"{first.get('finding')}: {first.get('evidence')}"
    if is_finite(first.get("expected")):
        why += f"; expected {number(first['expected'], 2)} times the time"
    override = first.get("override")
    return [("worth trying", override), ("", why)] if override else [("advice", why)]


def _next(summary: dict[str, Any], run: Path | str) -> list[Line]:
    folder = shlex.quote(str(run))
    commands = [f"accel report {folder}"]
    if summary.get("status") in RESUMABLE:
        commands.insert(0, f"accel resume {folder}")
    return [("run folder", str(run)), *(("next" if not i else "", text) for i, text in enumerate(commands))]
