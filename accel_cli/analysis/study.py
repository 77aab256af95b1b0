"""The folder of a study (ledger, sweep, tune, bench): claimed once, its JSON file rewritten after each event."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from accel_cli.engine.folder import claim, claim_exactly, in_use
from accel_cli.engine.summary import write_json
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.begin import command_line
from accel_cli.launch.environment import environment

UNFINISHED = ("running", "interrupted")
"""Statuses of a study that the same command goes on with; a killed one is still called running."""
SHOWING = ("--json", "--traceback", "--new", "--retry-failed")
"""Words that change nothing about what a study is."""


class Study:
    """``content`` is what FILE.json holds; ``resumed`` whether it was begun by an earlier process.

    >>> with Study.open("sweep", words, run_dir=arguments.run_dir, new=arguments.new) as study:
    ...     with study.change() as content:
    ...         content["points"][3]["status"] = "completed"
    ...     study.end("completed")
    """

    def __init__(self, folder: Path, kind: str, content: dict[str, Any], *, resumed: bool) -> None:
        self.folder, self.kind, self.content, self.resumed = folder, kind, content, resumed
        self._lock = threading.RLock()
        self._seconds, self._began = content["seconds"], time.monotonic()

    @classmethod
    @contextlib.contextmanager
    def open(
        cls, kind: str, words: Sequence[str], *, run_dir: Path | None = None, new: bool = False, again: bool = False
    ) -> Iterator[Study]:
        """Go on with the unfinished study of the same command line, or begin one; held for this process meanwhile.

        ``words`` is the command line from the verb on. Without ``run_dir`` studies lie in ``runs`` of the working
        directory, and ``new`` begins another whatever lies there; ``again`` goes on with one that has ended too. Raises
        ConfigError where ``run_dir`` holds anything else, or another process holds the study.
        """
        command = command_line([word for word in words if word not in SHOWING])
        statuses = (*UNFINISHED, "completed") if again else UNFINISHED
        if run_dir:
            found = _named(run_dir, kind, command, statuses, new=new)
        else:
            found = None if new else _unfinished(kind, command, statuses)
        folder = found or (claim_exactly(run_dir) if run_dir else claim(Path("runs"), kind))
        with in_use(folder):
            path = folder / f"{kind}.json"
            if path.exists():
                study = cls(folder.resolve(), kind, _read(path), resumed=True)
                study.content["status"] = "running"
            else:
                begun = {"format_version": 1, "kind": kind, "command": command, "started": time.time()}
                study = cls(folder.resolve(), kind, {**begun, "seconds": 0.0, "status": "running"}, resumed=False)
                (folder / "command.txt").write_text(command + "\n")
                write_json(folder / "environment.json", environment())
            study.save()
            yield study

    @property
    def path(self) -> Path:
        return self.folder / f"{self.kind}.json"

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """The content for this thread alone; it is written when the change is done."""
        with self._lock:
            yield self.content
            self.content["seconds"] = round(self._seconds + time.monotonic() - self._began, 3)
            write_json(self.path, self.content)

    def save(self) -> None:
        with self.change():
            pass

    def end(self, status: str) -> None:
        with self.change() as content:
            content["status"] = status


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get("format_version") != 1:
        raise ConfigError(
            Problem(str(path), "is damaged, or of another version of accel", "add --new, or move it away")
        )
    return content


def _unfinished(kind: str, command: str, statuses: Sequence[str]) -> Path | None:
    """The newest of ``runs`` that ``command`` began, where that can be gone on with."""
    for path in sorted(Path("runs").glob(f"*-{kind}*/{kind}.json"), reverse=True):
        with contextlib.suppress(ConfigError):
            content = _read(path)
            if content["command"] == command:
                return path.parent if content["status"] in statuses else None
    return None


def _named(folder: Path, kind: str, command: str, statuses: Sequence[str], *, new: bool) -> Path | None:
    """``folder`` where it holds the unfinished study of this command; None where it holds nothing yet."""
    where, path = f"--run-dir {folder}", folder / f"{kind}.json"
    if path.exists():
        content = _read(path)
        if content["command"] != command:
            raise ConfigError(Problem(where, f"holds another {kind}: {content['command']}", "give another --run-dir"))
        if content["status"] not in statuses:
            raise ConfigError(Problem(where, f"holds this {kind}, and it has ended", "give another --run-dir"))
        if new:
            raise ConfigError(Problem(where, f"holds this {kind}, unfinished", "leave out --new, or --run-dir"))
        return folder
    if (folder / "run.yaml").exists():
        raise ConfigError(Problem(where, "holds a run", "give another --run-dir"))
    return None
