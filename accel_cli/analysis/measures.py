"""Measured values as cells: a number, and in small print its interval or its spread over seeds."""

from __future__ import annotations

from typing import Any

from accel_cli.analysis.findings import Cell
from accel_cli.analysis.result import interval, part_of, ratio_form, spread
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, size


def ratio_cell(value: Any) -> Cell:
    """Of {"value", "low", "high"}."""
    found = interval(value)
    if found is None:
        return Cell(NOTHING)
    form = ratio_form(found)
    return Cell(f"{found.value:{form}}", "plain", (found.range(form),), found.value)


def difference_cell(value: Any, *, beyond: bool = False) -> Cell:
    """Of two metrics, as {"value", "low", "high"}."""
    found = interval(value)
    if found is None:
        return Cell(NOTHING)
    notes = (found.range("+.3g"), *(["beyond noise"] if beyond else []))
    return Cell(f"{found.value:+.3g}", "strong" if beyond else "plain", notes, found.value)


def seeds_cell(values: Any, unit: str = "") -> Cell:
    """The mean, and below it from the lowest to the highest."""
    found = spread(values)
    if found is None:
        return Cell(NOTHING)
    seeds = sum(map(is_finite, values))
    digits = 3 if unit else 4
    notes = (f"{found.range(f'.{digits}g')}, n={seeds}",) if seeds > 1 else ()
    return Cell(f"{number(found.value, digits)}{unit}", "plain", notes, found.value)


def milliseconds(value: Any) -> Cell:
    return Cell(f"{number(value, 3)} ms", order=value) if is_finite(value) else Cell(NOTHING)


def seconds(value: Any) -> Cell:
    return Cell(duration(value), order=value if is_finite(value) else None)


def numbered(value: Any, digits: int = 4) -> Cell:
    return Cell(number(value, digits), order=value if is_finite(value) else None)


def memory(value: Any) -> Cell:
    """The device's where there is one, else the host's; or a plain count of bytes."""
    parts = part_of(value)
    taken = next((parts[key] for key in ("device", "host") if is_finite(parts.get(key))), None if parts else value)
    return Cell(size(taken), order=taken) if is_finite(taken) else Cell(NOTHING)


def text_of(cell: Cell) -> str:
    """In one line: ``0.972 [0.97, 0.974], n=3``."""
    return " ".join([cell.text, *cell.notes])


def values_of(found: Any) -> list[Any]:
    """Over seeds: a list, or an object that holds one under "values"."""
    values = found.get("values") if isinstance(found, dict) else found
    return values if isinstance(values, list) else []
