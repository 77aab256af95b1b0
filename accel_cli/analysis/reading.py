"""Files of a run folder, read so that what is wrong with them becomes a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
Record = dict[str, Any]


class Reading(NamedTuple, Generic[T]):
    """What a file says, and what is wrong with it."""

    value: T
    notes: tuple[str, ...] = ()


def read_text(path: Path) -> Reading[str]:
    try:
        return Reading(path.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return Reading("", (f"{path.name} is missing",))
    except OSError as error:
        return Reading("", (f"{path.name} cannot be read: {error.strerror}",))


def read_json(path: Path) -> Reading[Any]:
    text, notes = read_text(path)
    if notes:
        return Reading(None, notes)
    try:
        return Reading(json.loads(text))
    except (ValueError, RecursionError):
        return Reading(None, (f"{path.name} is damaged",))


def read_object(path: Path) -> Reading[Record]:
    value, notes = read_json(path)
    if isinstance(value, dict):
        return Reading(value)
    return Reading({}, notes or (f"{path.name} is damaged",))


def read_decisions(path: Path) -> Reading[list[Record]]:
    """A list of {key, value, why, ...}, or one object by key."""
    value, notes = read_json(path)
    if isinstance(value, dict):
        rows = [value] if isinstance(value.get("key"), str) else [
            {"key": key, **(row if isinstance(row, dict) else {"value": row})} for key, row in value.items()
        ]  # fmt: skip
        return Reading(rows)
    if isinstance(value, list):
        return Reading([row for row in value if isinstance(row, dict)])
    return Reading([], notes or (f"{path.name} is damaged",))


def read_lines(path: Path) -> Reading[list[Record]]:
    """JSON lines. Half a last line is what a killed run leaves; any other bad line is damage."""
    text, notes = read_text(path)
    if notes:
        return Reading([], notes)
    lines = [line for line in text.split("\n") if line.strip()]
    records, bad = [], []
    for place, line in enumerate(lines):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append(record)
        else:
            bad.append(place)
    if bad == [len(lines) - 1]:
        return Reading(records, (f"{path.name} ends in half a line, which is left out",))
    if bad:
        return Reading(records, (f"{path.name} has {len(bad)} damaged lines, which are left out",))
    return Reading(records, () if records else (f"{path.name} is empty",))
