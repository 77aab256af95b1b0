"""This machine in plain facts, without torch: devices, cores, memory, installed packages."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from accel_cli.config import accelerators, cores, preload
from accel_cli.config.accelerators import GPU

__all__ = ["GPU", "Machine", "detect", "has_package", "memory_available", "version"]


@dataclass(frozen=True)
class Machine:
    """Cores and memory are what this process may use: affinity and control-group limits are counted in."""

    cores: int
    memory_bytes: int
    gpus: tuple[GPU, ...] = ()
    mps: bool = False
    cpu_flags: frozenset[str] = field(default_factory=frozenset)
    cpu_name: str = ""
    xpus: int = 0
    tpus: int = 0
    built_without: frozenset[str] = field(default_factory=frozenset)
    """Devices that this machine may have, and that the installed torch has no code for: cuda, xpu."""
    memory_nodes: int = 1
    all_cores: int = 0
    """Of the machine, those that this process may not use too."""
    core_mask: int = 0
    """Cores in this process's affinity mask; 0 where the system has none."""
    core_quota: float | None = None
    """Cores' worth of time that the control group grants."""
    allocators: dict[str, str] = field(default_factory=dict)
    """Installed libraries that can be preloaded in malloc's place: name -> path."""
    glibc: bool = False
    """Whether malloc is glibc's, which can be tuned in a running process."""
    counts_memory: bool = True
    """Whether the kernel tells what a process took at most, and keeps a limit on it: Linux."""

    @property
    def fast_bf16(self) -> bool:
        """Whether the processor multiplies bfloat16 in hardware; without that it is slower than fp32."""
        return bool(self.cpu_flags & {"amx_bf16", "avx512_bf16"})

    def count(self, device: str) -> int:
        """Devices of a kind: cuda, xpu, tpu, mps."""
        return {"cuda": len(self.gpus), "xpu": self.xpus, "tpu": self.tpus, "mps": int(self.mps)}.get(device, 0)

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "built_without": sorted(self.built_without),
            "cpu_flags": sorted(f for f in self.cpu_flags if f.startswith(("avx", "amx", "fma"))),
        }


@cache
def detect() -> Machine:
    """Look at the machine once. Takes milliseconds; never imports torch."""
    name, flags = _processor()
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    return Machine(
        cores=cores.usable(),
        memory_bytes=_memory(),
        gpus=accelerators.gpus(),
        mps=is_apple,
        cpu_flags=flags,
        cpu_name=name,
        xpus=accelerators.intel(),
        tpus=accelerators.tpus(),
        built_without=accelerators.built_without(),
        memory_nodes=cores.nodes(cores.allowed()),
        all_cores=os.cpu_count() or 1,
        core_mask=len(cores.allowed()),
        core_quota=cores.quota(),
        allocators=preload.installed(),
        glibc=_has_glibc(),
        counts_memory=os.access("/proc/self/clear_refs", os.W_OK),
    )


def has_package(name: str) -> bool:
    """Whether ``import name`` would find something; nothing is imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_available() -> int:
    """Bytes that can still be used now, by this machine and its control group."""
    available = _meminfo().get("MemAvailable", _memory())
    limit, used = _read_int("/sys/fs/cgroup/memory.max"), _read_int("/sys/fs/cgroup/memory.current")
    return available if limit is None or used is None else min(available, limit - used)


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False


def _memory() -> int:
    total = _meminfo().get("MemTotal")
    if total is None:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read_int("/sys/fs/cgroup/memory.max")
    return total if limit is None else min(total, limit)


def _meminfo() -> dict[str, int]:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {key: int(value.split()[0]) * 1024 for key, value in (line.split(":") for line in lines)}


def _read_int(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _processor() -> tuple[str, frozenset[str]]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine(), frozenset()
    rows = [line.partition(":") for line in text.partition("\n\n")[0].splitlines()]
    facts = {key.strip(): value.strip() for key, _, value in rows}
    return facts.get("model name") or platform.machine(), frozenset(facts.get("flags", "").split())
