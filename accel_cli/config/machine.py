"""This machine in plain facts, without torch: devices, cores, memory, installed packages."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class GPU:
    name: str
    memory_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """Cores and memory are what this process may use: affinity and control-group limits are counted in."""

    cores: int
    memory_bytes: int
    gpus: tuple[GPU, ...] = ()
    mps: bool = False
    cpu_flags: frozenset[str] = field(default_factory=frozenset)
    cpu_name: str = ""
    counts_memory: bool = True
    """Whether the kernel tells what a process took at most, and keeps a limit on it: Linux."""

    @property
    def fast_bf16(self) -> bool:
        """Whether the processor multiplies bfloat16 in hardware; without that it is slower than fp32."""
        return bool(self.cpu_flags & {"amx_bf16", "avx512_bf16"})

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "cpu_flags": sorted(f for f in self.cpu_flags if f.startswith(("avx", "amx", "fma"))),
        }


@cache
def detect() -> Machine:
    """Look at the machine once. Takes milliseconds; never imports torch."""
    name, flags = _processor()
    is_apple = sys.platform == "darwin" and platform.machine() == "arm64"
    counts_memory = os.access("/proc/self/clear_refs", os.W_OK)
    return Machine(_cores(), _memory(), _gpus(), is_apple, flags, name, counts_memory)


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


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


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


class _NVMLMemory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def _gpus() -> tuple[GPU, ...]:
    """NVIDIA devices through NVML: counting them must not start CUDA, which would forbid forking."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ()
    if nvml.nvmlInit_v2() != 0:
        return ()
    try:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        found = [_gpu(nvml, index) for index in range(count.value)]
    finally:
        nvml.nvmlShutdown()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(found)
    chosen = [part.strip() for part in visible.split(",")]
    if all(part.isdigit() for part in chosen):
        return tuple(found[int(part)] for part in chosen if int(part) < len(found))
    return tuple(found[: sum(part.startswith(("GPU-", "MIG-")) for part in chosen)])


def _gpu(nvml: ctypes.CDLL, index: int) -> GPU:
    handle, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), _NVMLMemory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    nvml.nvmlDeviceGetName(handle, name, 96)
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    return GPU(name.value.decode(), memory.total, (major.value, minor.value))
