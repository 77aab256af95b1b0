"""Rules about devices, cores and memory: what this machine has, and what of it a run would waste."""

from __future__ import annotations

import os

from accel_cli.config.facts import Facts, Rule
from accel_cli.config.preload import ALLOCATORS
from accel_cli.config.schema.hardware import BACKENDS
from accel_cli.config.strategy_rules import ranks_of

NEEDS = {"cuda": "an NVIDIA or AMD GPU", "xpu": "an Intel GPU", "mps": "an Apple GPU", "tpu": "a TPU"}
BUILD_FOR = {"cuda": "CUDA or ROCm", "xpu": "Intel GPUs"}
SPREADS_OVER_GPUS = ("dataparallel", "layers")
"""Strategies of one process that use several."""
PACKAGES = {"tcmalloc": "libtcmalloc-minimal4", "jemalloc": "libjemalloc2"}
"""Allocator -> the package that has its library on Debian and Ubuntu."""
BINDING = ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PLACES")
"""Variables that bind threads to cores, in every process to the same ones."""
UNBOUND = ("", "false", "disabled", "none")


def bound_by() -> str:
    """The variable that binds threads, or nothing."""
    return next((name for name in BINDING if os.environ.get(name, "").lower() not in UNBOUND), "")


def thread_limit() -> int | None:
    """What OpenMP is told never to exceed, whatever it is asked for."""
    value = os.environ.get("OMP_THREAD_LIMIT", "")
    return int(value) if value.isdigit() and int(value) else None


def _absent(device: str) -> Rule:
    return Rule(
        f"{device}-present", "refuse", f"hardware={device} needs {NEEDS[device]}",
        f"hardware={device}",
        lambda f: f.device == device and not f.machine.count(device),
        f"no {NEEDS[device].partition(' ')[2]} is visible on this machine",
        "try hardware=cpu or hardware=auto",
    )  # fmt: skip


def _unbuilt(device: str) -> Rule:
    return Rule(
        f"{device}-in-torch", "refuse", f"hardware={device} needs a torch built for it",
        f"hardware={device}",
        lambda f: f.device == device and bool(f.machine.count(device)) and device in f.machine.built_without,
        f"the installed torch has no code for {BUILD_FOR[device]}",
        "try hardware=cpu, or install the build for it: https://pytorch.org/get-started/locally",
    )  # fmt: skip


def _of_cores(facts: Facts) -> str:
    """The most processes that have a core each and make up the strategy's dimensions."""
    nodes = facts.run.launch.most_nodes
    for processes in range(facts.machine.cores, 1, -1):
        if ranks_of(facts, processes * nodes) == processes * nodes:
            return f"try launch.processes={processes}"
    return "try strategy=single launch.processes=1"


def _shards(facts: Facts) -> bool:
    return facts.sizes.get("shard", 1) > 1 or facts.run.strategy.option in ("fsdp", "hsdp")


HARDWARE_RULES: tuple[Rule, ...] = (
    *(_absent(device) for device in NEEDS),
    *(_unbuilt(device) for device in BUILD_FOR),
    Rule(
        "enough-gpus", "refuse", "on cuda, xpu and tpu every process needs a device of its own",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device in BACKENDS and 0 < f.machine.count(f.device) < f.processes,
        lambda f: f"one process needs one device; hardware={f.device} has {f.machine.count(f.device)}",
        lambda f: f"try launch.processes={f.machine.count(f.device)} or hardware=cpu",
    ),
    Rule(
        "one-process-on-mps", "refuse", "an Apple GPU serves one process",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device == "mps" and f.processes > 1,
        "an Apple GPU serves one process",
        "try strategy=single launch.processes=1",
    ),
    Rule(
        "gpus-unused", "warn", "fewer processes than GPUs leave some idle",
        lambda f: f"strategy={f.run.strategy.option}",
        lambda f: f.device in BACKENDS
        and f.machine.count(f.device) > f.processes
        and f.run.strategy.option not in SPREADS_OVER_GPUS,
        lambda f: f"uses {f.processes} of {f.machine.count(f.device)} devices",
        lambda f: f"try strategy=ddp launch.processes={f.machine.count(f.device)}",
    ),
    Rule(
        "backend-moves-device", "refuse", "launch.backend moves the memory of the device",
        lambda f: f"launch.backend={f.run.launch.backend}",
        lambda f: f.run.launch.backend not in ("gloo", BACKENDS.get(f.device, "gloo"))
        or (f.run.launch.backend == "gloo" and f.device in ("xpu", "tpu")),
        lambda f: f"the memory of hardware={f.device} travels over {BACKENDS.get(f.device, 'gloo')}",
        lambda f: f"try launch.backend={BACKENDS.get(f.device, 'gloo')}",
    ),
    Rule(
        "processes-and-cores", "warn", "more processes than cores take turns",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device == "cpu" and f.processes > f.machine.cores,
        lambda f: f"more processes than cores ({f.machine.cores}): they take turns",
        _of_cores,
    ),
    Rule(
        "threads-and-cores", "warn", "more threads than cores take turns",
        lambda f: f"hardware.threads={f.run.hardware.threads}",
        lambda f: f.run.hardware.threads * f.processes > max(f.machine.cores, f.processes),
        lambda f: f"{f.processes} x {f.run.hardware.threads} threads on {f.machine.cores} cores: they take turns",
        "try hardware.threads=auto",
    ),
    Rule(
        "threads-leave-cores", "warn", "fewer threads than cores leave some idle",
        lambda f: f"hardware.threads={f.run.hardware.threads}",
        lambda f: f.device == "cpu"
        and f.run.loader.option not in ("workers", "threads")
        and f.run.hardware.threads < f.machine.cores // f.processes,
        lambda f: f"{f.processes} x {f.run.hardware.threads} threads leave cores idle, of {f.machine.cores}",
        "try hardware.threads=auto",
    ),
    Rule(
        "thread-limit", "warn", "OMP_THREAD_LIMIT leaves room for hardware.threads",
        lambda f: f"hardware.threads={f.run.hardware.threads}",
        lambda f: f.device == "cpu" and (thread_limit() or f.run.hardware.threads) < f.run.hardware.threads,
        lambda f: f"OMP_THREAD_LIMIT={thread_limit()} is set: no more threads than that will work",
        "unset OMP_THREAD_LIMIT",
    ),
    Rule(
        "threads-bound-alike", "warn", "a variable that binds threads binds those of all processes to the same cores",
        lambda f: f"launch.processes={f.processes}",
        lambda f: f.device == "cpu" and f.processes > 1 and bool(bound_by()),
        lambda f: f"{bound_by()} is set: the threads of all processes may be bound to the same cores",
        lambda f: f"unset {bound_by()}; hardware.affinity=cores gives each process cores of its own",
    ),
    Rule(
        "cores-to-share", "refuse", "hardware.affinity=cores has a core for every process",
        "hardware.affinity=cores",
        lambda f: f.run.hardware.affinity == "cores" and f.processes > f.machine.core_mask,
        lambda f: f"{f.processes} processes share {f.machine.core_mask} cores"
        if f.machine.core_mask
        else "this system cannot bind a process to cores",
        "try hardware.affinity=none",
    ),
    Rule(
        "allocator-installed", "refuse", "hardware.allocator=tcmalloc and jemalloc need their library",
        lambda f: f"hardware.allocator={f.run.hardware.allocator}",
        lambda f: f.run.hardware.allocator in ALLOCATORS and f.run.hardware.allocator not in f.machine.allocators,
        lambda f: f"{ALLOCATORS[f.run.hardware.allocator]} is not installed",
        lambda f: f"try hardware.allocator=auto, or apt-get install {PACKAGES[f.run.hardware.allocator]}",
    ),
    Rule(
        "glibc-to-tune", "refuse", "hardware.allocator=tuned is glibc's",
        "hardware.allocator=tuned",
        lambda f: f.run.hardware.allocator == "tuned" and not f.machine.glibc,
        "the memory of this system is not handed out by glibc",
        "try hardware.allocator=system",
    ),
    Rule(
        "channels-last-whole", "refuse", "filters that are dealt over processes are contiguous",
        "hardware.memory_format=channels_last",
        lambda f: getattr(f.run.hardware, "memory_format", "") == "channels_last" and _shards(f),
        lambda f: f"strategy={f.run.strategy.option} deals weights over processes; torch deals contiguous ones only",
        "try hardware.memory_format=contiguous or strategy=ddp",
    ),
    Rule(
        "fp16-on-tpu", "refuse", "loss scaling is not supported on a TPU",
        "precision=fp16",
        lambda f: f.device == "tpu" and f.kernels == "fp16",
        "a TPU multiplies bf16; loss scaling is not tried on it",
        "try precision=bf16",
    ),
)  # fmt: skip
