"""Accelerators of this machine, found without torch: looking for them must not start a driver, or ranks could not fork.

NVIDIA's are counted by NVML; AMD's, Intel's and Google's by what their drivers leave below /sys. ``system`` is that
folder; tests hand over one of their own.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/sys")
AMD, INTEL, GOOGLE = 0x1002, 0x8086, 0x1AE0
"""Vendors, as the PCI bus numbers them."""
TPUS = {0x0027, 0x0056, 0x005E, 0x0062, 0x0063, 0x006F, 0x0076}
"""Google's PCI devices that are TPUs, v2 to v7; its network cards have other numbers."""


@dataclass(frozen=True)
class GPU:
    name: str
    memory_bytes: int
    capability: tuple[int, int]
    """CUDA's; of an AMD GPU its gfx version, which torch reports in the same place."""


def gpus(environment: Mapping[str, str] = os.environ, system: Path = SYSTEM) -> tuple[GPU, ...]:
    """What torch.cuda would find: NVIDIA's, and where there is none AMD's."""
    found = visible(_nvidia(), environment.get("CUDA_VISIBLE_DEVICES"))
    if found:
        return found
    names = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    found = amd(system)
    for name in names[:1] + tuple(n for n in names[1:] if n in environment)[:1]:  # torch heeds HIP's before CUDA's
        found = visible(found, environment.get(name))
    return found


def visible(found: tuple[GPU, ...], chosen: str | None) -> tuple[GPU, ...]:
    """Those that a variable of the user's leaves to this process, in its order."""
    if chosen is None:
        return found
    parts = [part.strip() for part in chosen.split(",")]
    if all(part.isdigit() for part in parts):
        return tuple(found[int(part)] for part in parts if int(part) < len(found))
    return found[: sum(part.startswith(("GPU-", "MIG-")) for part in parts)]


def amd(system: Path = SYSTEM) -> tuple[GPU, ...]:
    """By the nodes of the kfd driver, those with SIMD units: the others are processors."""
    found = []
    nodes = system / "class/kfd/kfd/topology/nodes"
    for node in sorted(nodes.glob("[0-9]*"), key=lambda path: int(path.name)):
        facts = _properties(node / "properties")
        if not facts.get("simd_count") or facts.get("vendor_id", AMD) != AMD:
            continue
        version = facts.get("gfx_target_version", 0)  # 90402 is gfx942
        memory = sum(_properties(bank).get("size_in_bytes", 0) for bank in node.glob("mem_banks/*/properties"))
        capability = version // 10_000, version // 100 % 100
        name = f"AMD gfx{capability[0]}{capability[1]:x}{version % 100:x}"
        found.append(GPU(name, memory, capability))
    return tuple(found)


def intel(system: Path = SYSTEM) -> int:
    """GPUs that the xe or i915 driver runs; which of them torch.xpu can use, only Intel's runtime can tell."""
    cards = [card / "device" for card in (system / "class/drm").glob("card*") if re.fullmatch(r"card\d+", card.name)]
    return sum(_number(card / "vendor") == INTEL and _driver(card) in ("xe", "i915") for card in cards)


def tpus(system: Path = SYSTEM) -> int:
    devices = list((system / "bus/pci/devices").glob("*"))
    return sum(_number(device / "vendor") == GOOGLE and _number(device / "device") in TPUS for device in devices)


def built_without(torch: Path | None = None) -> frozenset[str]:
    """The devices, of cuda and xpu, that the installed torch has no code for; read from the file that states it.

    ``torch`` is its folder. Empty where that cannot be told.
    """
    if torch is None:
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.origin is None:
            return frozenset()
        torch = Path(spec.origin).parent
    try:
        body = ast.parse((torch / "version.py").read_text(encoding="utf-8")).body
    except (OSError, SyntaxError):
        return frozenset()
    facts = {
        node.target.id: node.value.value
        for node in body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    absent = {"cuda"} if facts.get("cuda", "") is None and facts.get("hip") is None else set()
    return frozenset(absent | ({"xpu"} if facts.get("xpu", "") is None else set()))


def _properties(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:  # nodes of GPUs that a container may not use cannot be read
        return {}
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines) if value.strip().isdigit()}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(), 16)
    except (OSError, ValueError):
        return None


def _driver(device: Path) -> str:
    return (device / "driver").resolve().name


class _NVMLMemory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


def _nvidia() -> tuple[GPU, ...]:
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return ()
    if nvml.nvmlInit_v2() != 0:
        return ()
    try:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return tuple(_nvidia_gpu(nvml, index) for index in range(count.value))
    finally:
        nvml.nvmlShutdown()


def _nvidia_gpu(nvml: ctypes.CDLL, index: int) -> GPU:
    handle, name, memory = ctypes.c_void_p(), ctypes.create_string_buffer(96), _NVMLMemory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle))
    nvml.nvmlDeviceGetName(handle, name, 96)
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    return GPU(name.value.decode(), memory.total, (major.value, minor.value))
