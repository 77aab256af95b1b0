"""The attempts of one run: how often it was started, and the records that a resume went back behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line; a line that a kill left half written is passed over."""
    found = []
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def count(folder: Path) -> int:
    """How often this run has been started."""
    return len(records(folder / "attempts" / "log.jsonl")) or 1


def begun(folder: Path) -> bool:
    """Whether this run has been started before."""
    return (folder / "attempts" / "log.jsonl").exists()


def begin(folder: Path, facts: dict[str, Any]) -> int:
    """Note one more start of this run; returns its number."""
    log = folder / "attempts" / "log.jsonl"
    log.parent.mkdir(exist_ok=True)
    number = len(records(log)) + 1
    with log.open("a") as file:
        file.write(json.dumps({"attempt": number, **facts}) + "\n")
    return number


def cut(folder: Path, step: int) -> int:
    """Move the records after ``step`` out of metrics.jsonl into ``attempts/``, as a resume goes back to ``step``.

    Returns how many steps are lost. A half-written last line is dropped.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return 0
    kept, removed, furthest = [], [], step
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] > step:
            removed.append(line)
            furthest = max(furthest, record["step"])
        else:
            kept.append(line)
    if removed:
        kept_aside = folder / "attempts" / f"attempt-{count(folder)}.jsonl"
        kept_aside.parent.mkdir(exist_ok=True)
        kept_aside.write_text("".join(line + "\n" for line in removed))
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept))
    partial.replace(path)
    return furthest - step
