"""Arrays made once and kept as files, memory-mapped by every rank and later run.

    <folder>/<name>-<source>-<content>/*.npy, facts.json

where source is a hash of what was named and of the settings, content one of the files' names, sizes and times.
An entry is written beside its place and renamed there when complete, under a lock that the system frees should the
writer die: a killed preparation leaves nothing that is ever read.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from accel_cli.errors import ResourceError

FORMAT = 1
"""Counts the layouts of an entry: another one is another entry."""


def cache_folder(folder: str | None) -> Path:
    """The folder that the user named, or $XDG_CACHE_HOME/accel, or ~/.cache/accel."""
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "accel"


def fingerprint(root: Path, names: Iterable[str]) -> list[list[Any]]:
    """Name below ``root``, bytes and modification time of each file: what changes when the source does."""
    facts = ((name, os.stat(os.path.join(root, name))) for name in names)
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in facts]


def cached(
    folder: Path,
    *,
    name: str,
    source: dict[str, Any],
    content: list[list[Any]],
    bytes_needed: int,
    build: Callable[[Path], None],
) -> Path:
    """The folder of a complete entry, built if need be by ``build(empty folder)``.

    ``source`` says what was named and with which settings, ``content`` what it holds now (``fingerprint``); an entry of
    the same source with other content is dropped. Raises ResourceError where the folder can't be written or the disk
    is full.
    """
    stem = f"{name}-{digest([FORMAT, source])}"
    entry = folder / f"{stem}-{digest(content)}"
    if entry.is_dir():
        return entry
    with locked(folder, stem):
        if entry.is_dir():
            return entry
        # The lock is ours: a partial entry belongs to a writer that died, another entry to files that have changed.
        for stale in folder.glob(f"{stem}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        check_space(folder, bytes_needed)
        partial = folder / f"{entry.name}.partial"
        try:
            partial.mkdir()
            build(partial)
            _flush(partial)
            partial.rename(entry)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _no_space(folder, bytes_needed) from error
            raise
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return entry


def save(folder: Path, *, facts: dict[str, Any], **arrays: np.ndarray) -> None:
    """Write what an entry holds: named arrays, and facts as JSON."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def load(entry: Path, name: str) -> np.ndarray:
    """An array of an entry, memory-mapped. Copy-on-write: torch wants writable memory, the file never changes."""
    return np.load(entry / f"{name}.npy", mmap_mode="c", allow_pickle=False)


def load_facts(entry: Path) -> dict[str, Any]:
    return json.loads((entry / "facts.json").read_text(encoding="utf-8"))


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold ``<folder>/<name>.lock`` against every other process; the system frees it if this one dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"{name}.lock").open("w")
    except OSError as error:
        raise ResourceError(
            f"cannot write the data cache {folder}: {error.strerror}", "try data.cache=/a/folder/you/may/write"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def check_space(folder: Path, bytes_needed: int) -> None:
    """Raises ResourceError where the disk has less room than that."""
    if shutil.disk_usage(folder).free < bytes_needed:
        raise _no_space(folder, bytes_needed)


def _no_space(folder: Path, bytes_needed: int) -> ResourceError:
    free = shutil.disk_usage(folder).free
    return ResourceError(
        f"the data cache {folder} needs {bytes_needed:,} bytes and its disk has {free:,} free",
        "free some, or try data.cache=/a/folder/on/a/larger/disk",
    )


def digest(value: Any) -> str:
    """A short hash of plain values; what JSON does not know counts by its text."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _flush(folder: Path) -> None:
    """Let no rename reach the disk before the bytes do."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
