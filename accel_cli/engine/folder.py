"""The run folder: claimed once, by exclusive creation; used by one launcher at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from accel_cli.errors import ConfigError, Problem, ResourceError


def claim(parent: Path, name: str) -> Path:
    """Create ``<parent>/<time>-<name>``; a number is added where another run was as quick."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1, 1000):
            folder = parent / (f"{stamp}-{name}" + (f"-{number}" if number > 1 else ""))
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise ResourceError(
            f"cannot create a run folder in {parent}: {error.strerror}", "try --run-dir FOLDER"
        ) from None
    raise ResourceError(f"a thousand runs began in {parent} this second", "try --run-dir FOLDER")


def claim_exactly(folder: Path) -> Path:
    """Create this very folder, or take one that holds no run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(Problem(f"--run-dir {folder}", "is a file", "give a folder")) from None
    except OSError as error:
        raise ResourceError(f"cannot create {folder}: {error.strerror}", "try another --run-dir") from None
    return folder


@contextlib.contextmanager
def in_use(folder: Path, node: str = "") -> Iterator[bool]:
    """Hold the run for this process; ConfigError where another holds it. The kernel releases it with the process.

    The nodes of one run may hold it together, each once by the name that it gives. Yields whether this process is the
    only one.
    """
    with (folder / ".lock").open("a+") as run:
        alone = _take(run, fcntl.LOCK_EX)
        if not node:
            _sign(run, folder, alone)
            yield True
            return
        with (folder / f".lock-{node}").open("a+") as own:
            _sign(own, folder, _take(run, fcntl.LOCK_SH) and _take(own, fcntl.LOCK_EX))
            yield alone


def _sign(file: IO[str], folder: Path, held: bool) -> None:
    """Note who holds the lock, or tell who does."""
    if not held:
        file.seek(0)
        who = file.read().strip() or "another process"
        raise ConfigError(Problem(str(folder), f"is in use by {who}", "wait for it, or end it"))
    file.truncate(0)
    file.write(f"process {os.getpid()} on {os.uname().nodename}")
    file.flush()


def _take(file: IO[str], how: int) -> bool:
    """Lock a file if that can be done within half a second: another node may hold it for a moment as it looks."""
    for _ in range(1 if how == fcntl.LOCK_EX else 50):
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.01)
    return False


@contextlib.contextmanager
def once_a_node(path: Path) -> Iterator[None]:
    """Let the processes of this machine through one after another."""
    file: IO[str]
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
