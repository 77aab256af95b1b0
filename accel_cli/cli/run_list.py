"""The runs and studies below a folder: how each stands, and which runs hold nothing worth keeping."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from accel_cli.analysis.result import Result, kind_of
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.wording import as_number

DEEPEST = 6
"""Levels below the folder that are searched."""
OLD_SECONDS = 24 * 3600
"""A dry run may wait for its cluster that long."""
EMPTY_HANDED = ("failed", "interrupted", "unfinished")
"""States that, without a checkpoint, leave nothing to go on from."""
OWN_NAMES = frozenset({
    "run.yaml", "command.txt", "environment.json", "decisions.json", "metrics.jsonl", "summary.json", "report.html",
    "checkpoints", "attempts", "ranks", "profile", "export", "tensorboard", "mlflow", "mlflow-run.txt", "wandb",
    ".lock", ".prepare",
})  # fmt: skip
"""All that accel writes into a run folder. One that holds more is somebody's own folder, and is never deleted."""


@dataclass(frozen=True)
class Row:
    """A run folder as the table shows it."""

    path: Path
    status: str
    """running, unfinished (ended without a word), not started, or the summary's own."""
    steps: int | None
    metric: dict[str, Any]
    wall_seconds: float | None
    bytes: int
    checkpoints: int
    started: float
    """When run.yaml was written, in seconds since 1970."""


@dataclass(frozen=True)
class Study:
    """The folder of a ledger, sweep, tune or bench, with all the runs that it holds."""

    path: Path
    kind: str
    status: str
    """running, unfinished (ended without a word), budget spent, or its own."""
    seconds: float | None
    bytes: int
    command: str
    started: float
    """When it was begun, in seconds since 1970."""


T = TypeVar("T", Row, Study)


def listed(folder: Path) -> tuple[list[Row], list[Study]]:
    """The runs below ``folder`` (or itself), and the studies, the newest last. What a study holds is its own.

    Of a ``folder`` that is a study itself, these are its runs.
    """
    found = list(_folders(folder))
    runs = [look(path) for path, study in found if study is None]
    studies = [_look_at_study(study) for _, study in found if study is not None]
    return _by_age(runs), _by_age(studies)


def _by_age(found: list[T]) -> list[T]:
    return sorted(found, key=lambda row: (row.started, str(row.path)))


def _folders(folder: Path, depth: int = 0) -> Iterator[tuple[Path, Result | None]]:
    """Of runs (None) and studies; never through a link, and not inside another of either."""
    if is_run(folder):
        yield folder, None
        return
    if depth and (study := _study(folder)):
        yield folder, study
        return
    if depth == DEEPEST:
        return
    try:
        inner = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for path in inner:
        yield from _folders(Path(path), depth + 1)


def _study(folder: Path) -> Result | None:
    """What ``folder`` holds of a study; a baseline of accel bench that somebody keeps there makes it none."""
    study = Result(folder, kind) if (kind := kind_of(folder)) else None
    return study if study is not None and study.data.get("kind") == study.kind and study.command else None


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is a real folder with a real run.yaml that accel wrote."""
    path = folder / "run.yaml"
    try:
        if folder.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(2000)
    except OSError:
        return False
    return any(line.startswith("format_version:") for line in head.splitlines())


def look(folder: Path) -> Row:
    run = RunFolder(folder)
    summary = run.summary
    return Row(
        path=folder,
        status=status(folder, summary["status"]),
        steps=summary["steps"],
        metric={key: summary["metric"][key] for key in ("name", "value", "best")},
        wall_seconds=summary["wall_seconds"],
        bytes=size_on_disk(folder),
        checkpoints=sum(1 for _ in (folder / "checkpoints").glob("step-*")),
        started=(folder / "run.yaml").lstat().st_mtime,
    )


def _look_at_study(study: Result) -> Study:
    said = str(study.data.get("status", "running"))
    ended = {"running": "unfinished", "budget": "budget spent"}.get(said, said)
    return Study(
        path=study.path,
        kind=study.kind,
        status="running" if is_running(study.path) else ended,
        seconds=as_number(study.data.get("seconds")),
        bytes=size_on_disk(study.path),
        command=study.command,
        started=as_number(study.data.get("started")) or 0.0,
    )


def status(folder: Path, said: str | None) -> str:
    """How a run stands: its lock tells whether it runs, its summary how it ended."""
    if is_running(folder):
        return "running"
    if said is not None:
        return str(said)
    begun = any((folder / name).exists() for name in (".lock", "attempts", "metrics.jsonl"))
    return "unfinished" if begun else "not started"


def is_running(folder: Path) -> bool:
    """Whether a launcher holds the run's lock. The kernel takes it back from one that died."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def size_on_disk(folder: Path) -> int:
    """Bytes of the blocks below ``folder``; a file with several names counts once, a link counts itself."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                facts = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            if (facts.st_dev, facts.st_ino) not in seen:
                seen.add((facts.st_dev, facts.st_ino))
                total += facts.st_blocks * 512
    return total


def why_clean(row: Row) -> str | None:
    """Why a run holds nothing worth keeping; None for one that does, that runs, or that cannot be told.

    A plain torchrun takes no lock: without one, only a day of silence tells that nobody works there.
    """
    if row.checkpoints or foreign(row.path):
        return None
    is_silent = time.time() - last_change(row.path) > OLD_SECONDS
    if row.status in EMPTY_HANDED and (is_silent or (row.path / ".lock").exists()):
        return f"{row.status}, without a checkpoint"
    if row.status == "not started" and is_silent:
        return "a dry run of more than a day ago, never started"
    return None


def last_change(folder: Path) -> float:
    """Seconds since 1970 of the newest change to any file below ``folder``."""
    times = (os.lstat(os.path.join(parent, name)).st_mtime for parent, _, files in os.walk(folder) for name in files)
    return max(times, default=folder.lstat().st_mtime)


def foreign(folder: Path) -> list[str]:
    """Names in a run folder that accel did not put there."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.name not in OWN_NAMES)
