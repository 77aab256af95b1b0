"""What doctor concludes from facts and rates: each finding with its evidence and what to type."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accel_cli.analysis.wording import size, times
from accel_cli.config.hardware_rules import bound_by, thread_limit
from accel_cli.config.machine import Machine
from accel_cli.config.parts import table

CLEAR = 1.25
"""A rate that differs by less than this factor, or by less than fp32 does from itself, tells nothing."""
BUSY = 1.5
"""From this spread of one rate on, other programs are at work."""
LOADED = 0.75
"""From this load for each core on, other programs are at work."""
DELIVERED = 0.6
"""Of what as many single threads would do together: less from all threads is not how matrix products scale."""
PRECISIONS = ("bf16", "fp16", "fp8")
LITTLE_DISK = 2 << 30
LITTLE_SHARED_MEMORY = 256 << 20


class Finding(NamedTuple):
    """``fix`` is an override, or a command for the shell; empty where all is well."""

    finding: str
    evidence: str
    fix: str = ""


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


def precisions(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    """bf16, fp16 and fp8 against fp32, on the device that hardware=auto takes."""
    device, name, rates = _device(machine, measured)
    found = rates.get("flops_per_second", {})
    base = found.get("fp32")
    for precision in [p for p in PRECISIONS if p in table("precision")] if base else ():
        if rate := found.get(precision):
            evidence = f"matrix products: {flops(rate)} against fp32's {flops(base)}"
            yield from _compared(
                rate / base, precision, f"precision={precision}", "fp32", "precision=fp32", name,
                evidence + _noise(rates, measured, machine), _clear(rates, measured, machine),
            )  # fmt: skip


def formats(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    device, name, rates = _device(machine, measured)
    if found := rates.get("convolutions"):
        rate, base = found["channels_last"], found["contiguous"]
        yield from _compared(
            rate / base, "channels_last", "hardware.memory_format=channels_last", "contiguous",
            "hardware.memory_format=contiguous", name,
            f"convolutions: {flops(rate)} against contiguous {flops(base)}" + _noise(rates, measured, machine),
            _clear(rates, measured, machine),
        )  # fmt: skip


def _compared(
    ratio: float, what: str, pins: str, other: str, pins_other: str, name: str, evidence: str, clear: float
) -> Iterator[Finding]:
    if ratio > clear:
        yield Finding(f"{what} pays on {name}: {times(ratio)} the speed", evidence, pins)
    elif ratio * clear < 1:
        yield Finding(f"{what} on {name} is slower, {times(1 / ratio)} the time", evidence, pins_other)
    else:
        yield Finding(f"{what} on {name}: cannot tell it from {other}", evidence)


def allocators(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    rates = measured.get("rates", {}).get("cpu", {})
    if found := rates.get("fills"):
        ratio = found["tuned"] / found["fresh"]
        if ratio > _clear(rates, measured, machine):
            evidence = (
                f"filling fresh tensors of 64 MB: {bandwidth(found['tuned'])} against {bandwidth(found['fresh'])}"
            )
            told = evidence + _noise(rates, measured, machine)
            yield Finding(
                f"memory that is kept is filled {times(ratio)} as fast as fresh memory",
                told,
                "hardware.allocator=tuned",
            )


def scaling(machine: Machine, measured: Mapping[str, Any]) -> Iterator[Finding]:
    """Threads that do not deliver: bound to one core, throttled, or in other programs' way."""
    rates = measured.get("rates", {}).get("cpu", {})
    found = rates.get("threads")
    if not found or found["all"] > found["one"] * max(1.2, DELIVERED * found["cores"]):
        return
    noise, limit = _noise(rates, measured, machine), bound_by() or ("OMP_THREAD_LIMIT" if thread_limit() else "")
    yield Finding(
        f"{found['cores']} threads are {times(found['all'] / found['one'])} as fast as one",
        f"matrix products: {flops(found['all'])} against {flops(found['one'])}" + noise,
        f"unset {limit}" if limit else "" if noise else "hardware.threads=1",
    )


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


def _device(machine: Machine, measured: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    """The device that hardware=auto takes: torch's word for it, people's, and its rates."""
    rates = measured.get("rates", {})
    device = "cuda:0" if "cuda:0" in rates else "cpu"
    name = "this CPU" if device == "cpu" else machine.gpus[0].name if machine.gpus else device
    return device, name, rates.get(device, {})


def _clear(rates: Mapping[str, Any], measured: Mapping[str, Any], machine: Machine) -> float:
    return CLEAR * max(rates.get("spread") or 1.0, BUSY if _is_loaded(measured, machine) else 1.0)


def _is_loaded(measured: Mapping[str, Any], machine: Machine) -> bool:
    return bool(measured.get("load", 0.0) > machine.cores * LOADED)


def _noise(rates: Mapping[str, Any], measured: Mapping[str, Any], machine: Machine) -> str:
    spread = rates.get("spread") or 1.0
    if spread > BUSY:
        return f"; fp32 alone varied {times(spread)}, so other programs are at work here"
    if _is_loaded(measured, machine):
        return f"; {measured['load']:.0f} other processes wanted the {machine.cores} cores"
    return ""


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


def bandwidth(rate: float) -> str:
    return f"{rate / 1e9:.3g} GB/s" if rate >= 1e9 else f"{rate / 1e6:.3g} MB/s"


def flops(rate: float) -> str:
    """Operations per second as people read them."""
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"


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
