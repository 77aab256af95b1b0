"""What doctor concludes from facts and rates: each finding with its evidence and what to type."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accel_cli.analysis.wording import size
from accel_cli.cli.rate_findings import Finding, allocators, formats, precisions, scaling
from accel_cli.config.machine import Machine

LITTLE_DISK = 2 << 30
LITTLE_SHARED_MEMORY = 256 << 20


def findings(
    machine: Machine, measured: Mapping[str, Any], places: Sequence[Mapping[str, Any]], environment: Mapping[str, str]
) -> list[Finding]:
    """What pays here first, then what is wrong."""
    return [
        *precisions(machine, measured),
        *formats(machine, measured),
        *allocators(machine, measured),
        *scaling(machine, measured),
        *gpus(machine, measured),
        *disks(places),
        *bytecode(environment),
        *threads(machine, environment),
        *held_back(machine),
    ]


def held_back(machine: Machine) -> Iterator[Finding]:
    """Cores that the machine has and this process may not use."""
    if 0 < machine.core_mask < machine.all_cores:
        yield Finding(
            f"{machine.core_mask} of {machine.all_cores} cores may be used here",
            "the affinity mask of this shell says so",
            f"taskset -cp 0-{machine.all_cores - 1} $$",
        )
    if machine.core_quota is not None and machine.core_quota < machine.core_mask:
        yield Finding(
            f"the time of {machine.core_quota:g} of {machine.core_mask} cores may be used here",
            "the control group's cpu.max says so; hardware.threads=auto follows it",
        )


def gpus(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    versions = measured.get("versions", {})
    if machine.gpus and versions and not versions.get("cuda_usable"):
        built = f"built for CUDA {versions['cuda']}" if versions.get("cuda") else "built without CUDA"
        yield Finding(
            f"torch {versions['torch']} cannot use the {machine.gpus[0].name}",
            f"it is {built}, and torch.cuda.is_available() is False",
            "install the torch that fits the driver: https://pytorch.org/get-started/locally",
        )
    elif len(machine.gpus) > 1:
        yield Finding(f"{len(machine.gpus)} GPUs can share the work", "strategy=single uses one", "strategy=ddp")


def disks(places: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    for place in places:
        what, path, free = place["what"], place["path"], place["free_bytes"]
        if not place["writable"]:
            fix = "data.cache=FOLDER" if what == "cache" else "--run-dir FOLDER" if what == "here" else ""
            yield Finding(f"{path} cannot be written", f"it is the place of: {place['holds']}", fix)
        elif what == "shared memory" and free < LITTLE_SHARED_MEMORY:
            yield Finding(
                "little shared memory: worker processes of the loader can run out of it",
                f"{size(free)} free in {path}",
                "loader=memory, or docker run --shm-size=1g",
            )
        elif what != "shared memory" and free < LITTLE_DISK:
            yield Finding(f"little room for: {place['holds']}", f"{size(free)} free in {path}", "accel runs clean")


def bytecode(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Python that may not keep its bytecode compiles every imported file again at each start."""
    if not environment.get("PYTHONDONTWRITEBYTECODE"):
        return
    spec = importlib.util.find_spec("torch")
    kept = spec is not None and spec.origin and Path(importlib.util.cache_from_source(spec.origin)).exists()
    evidence = (
        "torch's is there already; that of other packages and of your own files may not be"
        if kept
        else "torch's is not there: importing it takes about 4x as long"
    )
    yield Finding(
        "PYTHONDONTWRITEBYTECODE is set: bytecode is never kept, so imports are slow at every start",
        evidence,
        "unset PYTHONDONTWRITEBYTECODE",
    )


def threads(machine: Machine, environment: Mapping[str, str]) -> Iterator[Finding]:
    value = environment.get("OMP_NUM_THREADS")
    if value is None or value == str(machine.cores):
        return
    fix = "unset OMP_NUM_THREADS; hardware.threads=N sets torch's"
    if not value.isdigit() or value == "0":
        yield Finding(f"OMP_NUM_THREADS={value[:20]} is no number of threads", "libraries then guess", fix)
        return
    fewer = int(value) < machine.cores
    effect = "leaves cores idle" if fewer else "makes threads take turns"
    yield Finding(
        f"OMP_NUM_THREADS={value} {effect} in numpy and in scripts beside accel",
        f"{machine.cores} cores; accel itself sets torch's threads by hardware.threads",
        fix,
    )


def places(cache: Path) -> list[dict[str, Any]]:
    """Free room where accel writes: the working directory, the cache folder, shared memory."""
    rows = [("here", Path.cwd(), "runs and checkpoints"), ("cache", cache, "downloads and decoded data")]
    if Path("/dev/shm").is_dir():
        rows.append(("shared memory", Path("/dev/shm"), "batches of the loader's workers"))
    found = []
    for what, path, holds in rows:
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        disk = os.statvfs(there)
        found.append(
            {
                "what": what,
                "path": str(path),
                "holds": holds,
                "free_bytes": disk.f_bavail * disk.f_frsize,
                "writable": os.access(there, os.W_OK),
            }
        )
    return found
