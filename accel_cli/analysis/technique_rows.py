"""Rows of a ledger: a technique against what it is compared with, as a table and as a picture of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accel_cli.analysis.findings import Cell, Table
from accel_cli.analysis.interval_plot import PlotRow, interval_plot
from accel_cli.analysis.markup import Html
from accel_cli.analysis.reading import Record
from accel_cli.analysis.result import Interval, interval, part_of, ratio_text, short, spread, words_of
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name, size

AXIS = (
    "Time of a step, as a multiple of what it is compared with (log): left of 1 is quicker, right of it slower. "
    "The band is the margin within which a difference counts as none."
)
HEADER = (
    "technique", "verdict", "against", "time of a step", "a step", "samples/s", "peak memory", "sent a step", "once",
    "pays off", "metric", "its change", "to the target", "whole runs",
)  # fmt: skip


def technique(row: Record) -> str:
    return words_of(row.get("technique")) or words_of(row.get("words")) or "?"


def verdict(row: Record) -> Cell:
    """In words, on a ground whose colour repeats them."""
    said = str(row.get("verdict") or row.get("status") or "not measured")
    forms = {"helps": "good", "hurts": "bad", "cannot tell": "warning", "failed": "bad", "refused": "warning"}
    return Cell(said, forms.get(said, "badge"))  # type: ignore[arg-type]


def table(rows: Sequence[Record]) -> Table:
    return Table(HEADER, [_row(row) for row in rows]).without_empty_columns(NOTHING)


def plot(rows: Sequence[Record], margin: float, floor: Interval | None = None) -> Html | None:
    """None where no row was measured; the first shows the baseline against itself."""
    drawn = [PlotRow(technique(row), interval(row.get("ratio")), verdict(row)) for row in rows]
    if not any(row.interval for row in drawn):
        return None
    first = [PlotRow("the baseline against itself", floor, Cell("floor", "badge"), code=False)] if floor else []
    return interval_plot([*first, *drawn], margin, AXIS)


def changed_metric(row: Record) -> str | None:
    """``precision=bf16 changes accuracy by -0.012 [-0.02, -0.004], beyond noise``"""
    metric = part_of(row.get("metric"))
    if metric.get("beyond_noise") is not True:
        return None
    difference = interval(metric.get("difference"))
    by = f" by {difference.text(sign='+')}" if difference else ""
    return f"{technique(row)} changes {plain_name(metric.get('name') or 'the metric')}{by}, beyond noise"


def _row(row: Record) -> list[Cell]:
    ratio, metric = interval(row.get("ratio")), part_of(row.get("metric"))
    unequal = words_of(row.get("unequal"))
    notes = [f"unequal work: {unequal}"] if unequal else []
    notes += [short(row.get("cause"))] if row.get("cause") else []
    against = str(row.get("against") or "")
    difference = interval(metric.get("difference"))
    beyond = ("beyond noise",) if metric.get("beyond_noise") is True else ()
    target, whole = part_of(row.get("seconds_to_target")), part_of(row.get("run_seconds"))
    return [
        Cell(technique(row), "code", tuple(notes)),
        verdict(row),
        Cell("" if against == "baseline" else against),
        Cell(ratio.text() if ratio else NOTHING, order=ratio.value if ratio else None),
        milliseconds(row.get("step_milliseconds")),
        numbered(row.get("samples_per_second"), 3),
        memory(row.get("peak_memory_bytes")),
        Cell(size(row.get("communication_bytes") or None)),
        Cell(one_off(row.get("one_off_seconds"))),
        Cell(_break_even(row.get("break_even_step"))),
        Cell(over_seeds(metric.get("values"))),
        Cell(difference.text(sign="+") if difference else NOTHING, "strong" if beyond else "plain", beyond),
        Cell(_target(target)),
        Cell(ratio_text(whole.get("ratio"))),
    ]


def over_seeds(values: Any) -> str:
    """The mean and the range over seeds."""
    found = spread(values)
    if found is None:
        return NOTHING
    seeds = sum(map(is_finite, values))
    return found.text(4) + f", n={seeds}" if seeds > 1 else number(found.value)


def milliseconds(value: Any) -> Cell:
    known = is_finite(value)
    return Cell(f"{number(value, 3)} ms" if known else NOTHING, order=value if known else None)


def numbered(value: Any, digits: int = 4) -> Cell:
    return Cell(number(value, digits), order=value if is_finite(value) else None)


def memory(value: Any) -> Cell:
    """The device's where there is one, else the host's; or a plain count of bytes."""
    parts = part_of(value)
    bytes_ = next((parts[key] for key in ("device", "host") if is_finite(parts.get(key))), None if parts else value)
    return Cell(size(bytes_), order=bytes_ if is_finite(bytes_) else None)


def one_off(value: Any) -> str:
    said = [f"{key} {duration(part)}" for key, part in part_of(value).items() if is_finite(part) and part >= 0.05]
    return ", ".join(said) or NOTHING


def _break_even(step: Any) -> str:
    return f"after step {number(int(step))}" if is_finite(step) else NOTHING


def _target(target: Record) -> str:
    values = target.get("values")
    missed = sum(value is None for value in values) if isinstance(values, list) else 0
    said = [ratio_text(target.get("ratio"))] if interval(target.get("ratio")) else []
    return (
        ", ".join([*said, *([f"{missed} of {len(values)} never reached it"] if missed and values else [])]) or NOTHING
    )
