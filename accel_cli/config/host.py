"""What ``auto`` means for the processes that ranks are: threads, cores, and who hands out memory; with the reason."""

from __future__ import annotations

import os
from collections.abc import Mapping

from accel_cli.config.machine import Machine

OWN_MALLOC = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Variables by which a user has settled who hands out memory, and how."""


def threads(machine: Machine, processes: int) -> tuple[int, str]:
    """Of one process."""
    why = f"{machine.cores} cores / {processes} processes"
    if machine.core_quota is not None and machine.core_quota < machine.core_mask:
        why += f"; the control group grants {machine.core_quota:g} of {machine.core_mask}"
    elif machine.core_mask < machine.all_cores:
        why += f"; the affinity mask allows {machine.core_mask} of {machine.all_cores}"
    return max(1, machine.cores // processes), why


def affinity(machine: Machine, processes: int) -> tuple[str, str]:
    if processes == 1:
        return "none", "one process has all cores"
    if machine.memory_nodes == 1:
        return "none", "all cores are as near to memory: the system may move a process off a busy core"
    if processes > machine.core_mask or machine.cores < machine.core_mask:
        return "none", "there is no whole core for each process"
    return "cores", f"memory has {machine.memory_nodes} nodes: a process stays near its own"


def allocator(machine: Machine, device: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    if device != "cpu":
        return "system", f"tensors lie on the {device}"
    if own := next((name for name in OWN_MALLOC if environment.get(name)), ""):
        return "system", f"{own} is set"
    if not machine.glibc:
        return "system", "only glibc's can be tuned"
    return "tuned", "freed tensors are used again, where glibc would return them and fault their pages in anew"
