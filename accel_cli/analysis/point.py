"""A point of a sweep: its row, what its run folder tells, and how it has ended."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_cli.analysis import judge
from accel_cli.analysis.judge import Metric
from accel_cli.analysis.reading import read_lines, read_object
from accel_cli.analysis.search import Point, Row
from accel_cli.config.axes import Axis
from accel_cli.errors import ConfigError, in_a_line
from accel_cli.launch.first_failure import Failure
from accel_cli.launch.front import Outcome

FINISHED = ("completed", "target_reached", "stopped_early")
FAILED = ("failed", "refused", "timed_out", "out_of_memory")
ENDED = (*FINISHED, *FAILED, "pruned")
"""Statuses of a row that is not run again."""
NO_MEMORY = ("OutOfMemoryError", "MemoryError", "ran out of memory", "out of memory", "can't allocate memory",
             "want of memory")  # fmt: skip
"""What a failure's type or words say where memory was wanting; exit code 7 stands for full disks too."""


def row(number: int, axes: Sequence[Axis], values: Point) -> Row:
    """A row of sweep.json before anything is known."""
    return {
        "number": number,
        "point": [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)],
        "values": list(values),
        "status": "waiting",
        **dict.fromkeys(("exit_code", "cause", "run", "metric", "loss", "train_seconds", "wall_seconds")),
        "seconds": 0.0,
        **dict.fromkeys(("samples_per_second", "peak_memory_bytes", "steps", "samples", "mode")),
        "reported": [],
    }


def name(row: Row) -> str:
    """Of its folder, in the sweep's."""
    return f"{row['number']:03d}"


def refused(error: ConfigError) -> dict[str, Any]:
    return {"status": "refused", "exit_code": error.exit_code, "cause": in_a_line(error.problems)}


def found(
    folder: Path,
    summary: dict[str, Any],
    outcome: Outcome,
    *,
    pruned: bool,
    limit: float | None,
    metric: Metric | None,
) -> dict[str, Any]:
    """How a run that this process has started came out; ``limit`` is the time in seconds that was up."""
    failure = outcome.failure
    values = {**_measured(folder, summary, metric), "exit_code": outcome.exit_code, "cause": None}
    if summary.get("status") in FINISHED and outcome.exit_code == 0:
        ended = outcome.export
        if ended is not None and ended.failure is not None:
            values |= {"exit_code": ended.exit_code, "cause": f"export: {ended.failure.message}"}
        return {**values, "status": summary["status"]}
    at = f" at step {summary['steps']}" if summary.get("steps") else ""
    if pruned:
        return {**values, "status": "pruned", "cause": f"others were better{at or ' by now'}"}
    if limit is not None:
        return {**values, "status": "timed_out", "cause": f"its {limit:g} s were up{at}"}
    if failure is None or outcome.exit_code in (75, 130, 143):
        return {**values, "status": "interrupted"}
    if failure.problems:
        return {**values, "status": "refused", "cause": failure.cause}
    return {**values, "status": _kind(failure.type, failure.message), "cause": _cause(failure)}


def recorded(folder: Path, metric: Metric | None) -> dict[str, Any] | None:
    """How a run had ended that its sweep did not live to note; None where it has not ended."""
    summary = read_summary(folder)
    status = summary.get("status")
    if status is None or status == "interrupted":
        return None
    values = {**_measured(folder, summary, metric), "exit_code": summary["exit_code"], "run": folder.name}
    values["seconds"] = summary["wall_seconds"] or 0.0
    error = summary.get("error")
    if status in FINISHED or not error:
        return {**values, "status": status}
    at = "" if error["step"] is None else f" at step {error['step']}"
    cause = f"{error['type']}: {error['message']}{at}"
    return {**values, "status": _kind(error["type"], error["message"]), "cause": cause}


def read_summary(folder: Path) -> dict[str, Any]:
    return read_object(folder / "summary.json").value


def has_checkpoint(folder: Path) -> bool:
    return any(folder.glob("checkpoints/step-*/manifest.json"))


def seconds_spent(row: Row, folder: Path) -> float:
    """What earlier processes have given to a point, as far as they lived to note it."""
    lines = read_lines(folder / "metrics.jsonl").value
    return max(row["seconds"], max((line.get("seconds") or 0.0 for line in lines), default=0.0))


def clear(folder: Path) -> None:
    """A run that left nothing to go on from begins anew."""
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)  # a dying rank may have written meanwhile


def _kind(kind: str, message: str) -> str:
    return "out_of_memory" if any(words in f"{kind} {message}" for words in NO_MEMORY) else "failed"


def _cause(failure: Failure) -> str:
    return failure.cause + ("" if failure.step is None else f" at step {failure.step}")


def _measured(folder: Path, summary: dict[str, Any], metric: Metric | None) -> dict[str, Any]:
    keys = ("loss", "train_seconds", "wall_seconds", "samples_per_second", "peak_memory_bytes", "steps", "samples")
    values: dict[str, Any] = {key: summary.get(key) for key in keys}
    values["metric"] = summary.get("metric") if metric is None else judge.value(folder, summary, *metric)
    return values
