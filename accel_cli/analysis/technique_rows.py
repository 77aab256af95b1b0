"""Rows of a ledger: a technique against what it is compared with, as a table and as a picture of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accel_cli.analysis.findings import Cell, Form, Table
from accel_cli.analysis.interval_plot import PlotRow, interval_plot
from accel_cli.analysis.markup import Html
from accel_cli.analysis.measures import (
    difference_cell,
    memory,
    milliseconds,
    numbered,
    ratio_cell,
    seeds_cell,
    values_of,
)
from accel_cli.analysis.reading import Record
from accel_cli.analysis.result import Interval, finite_or, interval, part_of, short, words_of
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name, size

AXIS = (
    "Time of a step, as a multiple of what it is compared with (log): left of 1 is quicker, right of it slower. "
    "The band is the margin within which a difference counts as none."
)
HEADER = (
    "technique", "verdict", "against", "time of a step", "metric's change", "time to target", "whole run", "once",
    "pays off", "a step", "samples/s", "peak memory", "sent a step", "metric",
)  # fmt: skip
PAGE_ONLY = frozenset({"a step", "samples/s", "sent a step", "metric"})
FORMS: dict[str, Form] = {
    "helps": "good",
    "hurts": "bad",
    "cannot tell": "warning",
    "failed": "bad",
    "refused": "warning",
}


def technique(row: Record) -> str:
    return words_of(row.get("technique")) or words_of(row.get("words")) or "?"


def verdict(row: Record) -> Cell:
    """In words, on a ground whose colour repeats them; of a row that did not run, that it did not."""
    status = str(row.get("status") or "measured")
    said = str(row.get("verdict") or "not judged") if status == "measured" else status
    return Cell(said, FORMS.get(said, "badge"))


def table(rows: Sequence[Record]) -> Table:
    return Table(HEADER, [_row(row) for row in rows], page_only=PAGE_ONLY).without_empty_columns(NOTHING)


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
    by = f" by {difference.text('+.3g')}" if difference else ""
    return f"{technique(row)} changes {plain_name(metric.get('name') or 'the metric')}{by}, beyond noise"


def one_off(value: Any) -> str:
    said = [f"{key} {duration(part)}" for key, part in part_of(value).items() if is_finite(part) and part >= 0.05]
    return ", ".join(said) or NOTHING


def _row(row: Record) -> list[Cell]:
    metric, unequal = part_of(row.get("metric")), row.get("unequal")
    unequal = ", ".join(map(str, unequal)) if isinstance(unequal, list) else unequal
    notes = [f"unequal work: {short(unequal)}; times are a sample's"] if unequal else []
    notes += [short(row["cause"])] if row.get("cause") else []
    against = words_of(row.get("against"))
    return [
        Cell(technique(row), "code", tuple(notes)),
        verdict(row),
        Cell("" if against == "baseline" else against, "code"),
        ratio_cell(row.get("ratio")),
        difference_cell(metric.get("difference"), beyond=metric.get("beyond_noise") is True),
        _over_seeds(row.get("seconds_to_target")),
        _over_seeds(row.get("run_seconds")),
        _once(row.get("one_off_seconds")),
        _pays_off(row.get("break_even_step")),
        milliseconds(row.get("step_milliseconds")),
        numbered(row.get("samples_per_second"), 3),
        memory(row.get("peak_memory_bytes")),
        Cell(size(row.get("communication_bytes") or None)),
        seeds_cell(values_of(metric)),
    ]


def _once(value: Any) -> Cell:
    parts = [float(part) for part in part_of(value).values() if is_finite(part)]
    compiling = finite_or(part_of(value).get("compile"), 0)
    notes = (f"compile {duration(compiling)}",) if compiling >= 0.05 else ()
    return Cell(duration(sum(parts)), "plain", notes, sum(parts)) if parts else Cell(NOTHING)


def _pays_off(step: Any) -> Cell:
    return Cell(f"after step {number(int(step))}", order=step) if is_finite(step) else Cell(NOTHING)


def _over_seeds(found: Any) -> Cell:
    """The ratio to the baseline's, and how many never got there."""
    cell, values = ratio_cell(part_of(found).get("ratio")), values_of(found)
    missed = sum(value is None for value in values)
    return cell._replace(notes=(*cell.notes, f"{missed} of {len(values)} never got there")) if missed else cell
