"""accel runs: the runs and studies below a folder, and the deletion of runs that hold nothing worth keeping."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import uuid
from pathlib import Path
from typing import Any

from accel_cli.analysis.wording import NOTHING, duration, number, size
from accel_cli.cli.run_list import Row, Study, foreign, listed, look, why_clean
from accel_cli.cli.table import columns
from accel_cli.engine.folder import in_use
from accel_cli.errors import ConfigError, Problem

HEAD = ("run", "status", "steps", "metric", "wall time", "on disk")
STUDY_HEAD = ("study", "status", "wall time", "on disk", "command")
STYLES = {
    "running": "cyan", "completed": "green", "target_reached": "green", "stopped_early": "green", "settled": "green",
    "interrupted": "yellow", "unfinished": "yellow", "budget spent": "yellow", "not started": "dim", "failed": "red",
    "diverged": "red",
}  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    folder = arguments.folder
    if not folder.is_dir() and (folder != Path("runs") or folder.exists()):
        why = "is not a folder" if folder.exists() else "no such folder"
        raise ConfigError(Problem(f"--folder {folder}", why, "give the folder that holds the run folders"))
    runs, studies = listed(folder)
    if arguments.action == "clean":
        return clean(runs, folder, delete=arguments.yes, as_json=arguments.json)
    if arguments.json:
        found = {"folder": folder, "runs": [vars(row) for row in runs], "studies": [vars(row) for row in studies]}
        print(json.dumps(found, default=str))
        return 0
    tables = []
    if runs:
        tables.append(_table(HEAD, [cells(row, folder) for row in runs]))
    if studies:
        tables.append(_table(STUDY_HEAD, [study_cells(row, folder) for row in studies]))
    print("\n\n".join(tables) or f"no runs below {folder}")
    return 0


def _table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Of lines that begin with a name and a status."""
    plain = [""] * (len(head) - 2)
    styles = [["dim"] * len(head), *(["bold", STYLES.get(status, ""), *plain] for _, status, *_ in lines)]
    return columns([head, *lines], styles)


def cells(row: Row, folder: Path) -> tuple[str, ...]:
    name, value, best = row.metric["name"], row.metric["value"], row.metric["best"]
    shown = f"{name} {number(value)}" if value is not None else f"best {name} {number(best)}" if best else NOTHING
    steps = NOTHING if row.steps is None else f"{row.steps:,}"
    wall = NOTHING if row.wall_seconds is None else duration(row.wall_seconds)
    return (name_of(row, folder), row.status, steps, shown, wall, size(row.bytes))


def study_cells(row: Study, folder: Path) -> tuple[str, ...]:
    took = NOTHING if row.seconds is None else duration(row.seconds)
    return (name_of(row, folder), row.status, took, size(row.bytes), row.command)


def name_of(row: Row | Study, folder: Path) -> str:
    """As it is typed after --folder, or the folder itself."""
    return str(row.path.relative_to(folder)) if row.path != folder else str(folder)


def clean(found: list[Row], folder: Path, *, delete: bool, as_json: bool) -> int:
    """Name what holds nothing worth keeping; delete it where ``delete`` says so."""
    gone: list[dict[str, Any]] = []
    problems: list[str] = []
    for row in found:
        why = why_clean(row)
        if why is None:
            continue
        if delete and (problem := remove(row)):
            problems.append(f"{row.path}: {problem}")
            continue
        gone.append({"path": str(row.path), "why": why, "bytes": row.bytes})
    total = sum(row["bytes"] for row in gone)
    if as_json:
        print(json.dumps({"deleted": delete, "runs": gone, "bytes": total, "kept": len(found) - len(gone),
                          "problems": problems}))  # fmt: skip
    else:
        if gone:
            print(columns([[row["path"], row["why"], size(row["bytes"])] for row in gone]))
        count = f"{len(gone)} run" + ("" if len(gone) == 1 else "s")
        if not gone:
            print(f"nothing to clean below {folder}; {len(found)} kept")
        elif delete:
            print(f"deleted {count}, {size(total)} ({total:,} bytes); {len(found) - len(gone)} kept")
        else:
            print(f"would delete {count}, {size(total)} ({total:,} bytes); add --yes to do it")
    for problem in problems:
        print(f"accel: kept {problem}", file=sys.stderr)
    return 7 if problems else 0


def remove(row: Row) -> str | None:
    """Delete one run folder, held so that nobody resumes it meanwhile. Returns what stood in the way, if anything."""
    try:
        with in_use(row.path):
            again = look(row.path)
            if again.checkpoints or again.steps != row.steps or foreign(row.path):
                return "it has changed since it was listed"
            doomed = row.path.with_name(f".deleted-{uuid.uuid4().hex}")
            row.path.rename(doomed)  # in one step: a half-deleted folder never passes for a run
            shutil.rmtree(doomed)
    except ConfigError as error:
        return error.problems[0].why
    except OSError as error:
        return error.strerror or str(error)
    return None
