"""A map-style data set decoded once a node: one file that all its ranks fill, each a part, and map into memory."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch

from accel_cli.data.base import Report
from accel_cli.data.cache import cache_folder, check_space, digest
from accel_cli.errors import AccelError, ConfigError, ResourceError
from accel_cli.loader.read import Collate
from accel_cli.loader.sharing import Sharing
from accel_cli.loader.stacked import Stacked, fill, laid_out, leaves, look, size
from accel_cli.world import World

FORMAT = 1
"""Counts the layouts of a kept file: another one is another entry."""
HELD: dict[str, Stacked] = {}
"""What this process has mapped, by what it was made of: the trials of a run and its training decode once."""


@dataclass(frozen=True)
class Kept:
    """Where decoded samples stay for later runs, and what names their content."""

    folder: str | None
    content: dict[str, Any]

    def entry(self, sample: Any, samples: int) -> Path:
        fields = [[list(field.shape), str(field.dtype)] for field in leaves(sample)]
        own = {name: self.content[name] for name in self.content if name != "fingerprint"}
        stem = f"decoded-{digest(own)}"
        return cache_folder(self.folder) / f"{stem}-{digest([FORMAT, self.content, fields, samples])}"


class Node(Sharing):
    """The ranks of this node among those of ``world``. Every method is a collective of all of them."""

    def __init__(
        self, world: World, made_of: Any, kept: Kept | None, progress: Report, device_memory: int | None = None
    ) -> None:
        """``made_of``: what the data set follows from, such as its configuration and the seed."""
        self.world = world
        self.made_of = digest(made_of)
        self.kept = kept
        self.progress = progress
        self.device_memory = device_memory

    def agree(self, look: Callable[[], Any], *, each: bool = False) -> Any:
        return self._everywhere(look if each or self.world.local_rank == 0 else lambda: None)

    def stacked(self, dataset: Any, *, collate: Collate | None, seed: int, option: str) -> Stacked:
        """Nothing stays behind, even of ranks that are killed: unless it is kept, the file has no name."""
        if self.made_of in HELD:
            return HELD[self.made_of]
        sample = self.agree(lambda: look(dataset, collate=collate, seed=seed, option=option))
        samples, total = len(dataset), size(sample, len(dataset))
        with self._file(sample, samples, total) as (path, is_complete):
            mapped = numpy.memmap(path, numpy.uint8, "c" if is_complete else "r+", shape=(total,))
            rows = laid_out(sample, samples, torch.from_numpy(mapped))
            part = range(0) if is_complete else self._part(samples)

            def report(read: int) -> None:
                self.progress("decoding samples", min(samples, read * self.world.local_world_size), samples)

            self._everywhere(lambda: fill(rows, dataset, part, seed=seed, option=option, report=report))
        HELD[self.made_of] = Stacked(rows, samples)
        return HELD[self.made_of]

    def _part(self, samples: int) -> range:
        """Those that this rank decodes, so that all of a node are done in the time of one."""
        number, ranks = self.world.local_rank, self.world.local_world_size
        return range(samples * number // ranks, samples * (number + 1) // ranks)

    @contextmanager
    def _file(self, sample: Any, samples: int, total: int) -> Iterator[tuple[str, bool]]:
        """(path of the node's file, whether it is filled already); at the end all its ranks have mapped and filled it.

        The node's first rank makes it; the others open it by the name that it has there.
        """
        own = _Writer(self.kept.entry(sample, samples) if self.kept else None, total)
        node = self.world.rank - self.world.local_rank
        is_first = self.world.local_rank == 0
        try:
            found = self._everywhere(lambda: {node: own.open()} if is_first else {}, every=True)
            yield next(each[node] for each in found if node in each)
            self._everywhere(own.keep if is_first else lambda: None)
        finally:
            own.close()

    def _everywhere(self, act: Callable[[], Any], *, every: bool = False) -> Any:
        """What ``act`` gives on the first rank, or on ``every`` one. An AccelError of any rank is raised on all."""
        value, error = None, None
        try:
            value = act()
        except AccelError as raised:
            value, error = _packed(raised), raised
        found = self.world.gather((value, error is not None))
        failed = [value for value, is_error in found if is_error]
        if failed:
            raise error or _unpacked(failed[0])
        return [value for value, _ in found] if every else found[0][0]


class _Writer:
    """The file of a node: without a name in memory, or an entry that is written aside and renamed when complete.

    Where another run is writing the same entry, this one has a file of its own rather than wait.
    """

    def __init__(self, entry: Path | None, total: int) -> None:
        self.entry = entry
        self.total = total
        self._descriptors: list[int] = []
        self._partial: Path | None = None
        self._named: str | None = None

    def open(self) -> tuple[str, bool]:
        """(path, whether it is complete). Raises ResourceError where there is no room."""
        if self.entry is not None:
            if (self.entry / "samples").is_file():
                return str(self.entry / "samples"), True
            if self._lock(self.entry):
                return self._begin(self.entry), False
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("accel-samples")
            self._descriptors.append(descriptor)
            os.ftruncate(descriptor, self.total)
            return f"/proc/{os.getpid()}/fd/{descriptor}", False
        descriptor, self._named = tempfile.mkstemp(prefix="accel-samples-")
        self._descriptors.append(descriptor)
        os.ftruncate(descriptor, self.total)
        return self._named, False

    def keep(self) -> None:
        """All is filled: let the entry be found, if there is one."""
        if self._partial is not None and self.entry is not None:
            os.fsync(self._descriptors[-1])
            self._partial.rename(self.entry)
            self._partial = None

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        if self._named is not None:
            os.unlink(self._named)
        if self._partial is not None:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _lock(self, entry: Path) -> bool:
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            stem = entry.name.rpartition("-")[0]
            descriptor = os.open(entry.parent / f"{stem}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            message = f"cannot write the data cache {entry.parent}: {error.strerror}"
            raise ResourceError(message, "try data.cache=/a/folder/you/may/write or data.fingerprint=null") from error
        self._descriptors.append(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _begin(self, entry: Path) -> str:
        # The lock is ours: a partial entry belongs to a writer that died, another entry to other content.
        for stale in entry.parent.glob(f"{entry.name.rpartition('-')[0]}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        check_space(entry.parent, self.total)
        self._partial = entry.with_name(f"{entry.name}.partial")
        self._partial.mkdir()
        path = self._partial / "samples"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        self._descriptors.append(descriptor)
        os.ftruncate(descriptor, self.total)
        if hasattr(os, "posix_fallocate"):  # a mapped page without room would end the process
            try:
                os.posix_fallocate(descriptor, 0, self.total)
            except OSError as error:
                message = f"the data cache {entry.parent} has no room for {self.total:,} bytes: {error.strerror}"
                raise ResourceError(message, "try data.cache=/a/folder/on/a/larger/disk") from error
        return str(path)


def _packed(error: AccelError) -> tuple[Any, ...]:
    """Fit to be sent: the error itself might not survive pickling."""
    problems = error.problems if isinstance(error, ConfigError) else ()
    return type(error), getattr(error, "message", str(error)), getattr(error, "fix", ""), problems


def _unpacked(packed: tuple[Any, ...]) -> AccelError:
    kind, message, fix, problems = packed
    found: AccelError = kind(problems) if problems else kind(message, fix)
    return found
