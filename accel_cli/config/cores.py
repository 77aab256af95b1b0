"""The cores that this process may use, in an order in which neighbours share memory, and what holds others back."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM = Path("/sys")


def allowed() -> list[int]:
    """Core numbers, by the affinity mask; empty where the system has none, as on an Apple computer."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else []


def quota(system: Path = SYSTEM) -> float | None:
    """Cores' worth of time that the control group grants, None for all that there is."""
    try:
        granted, period = (system / "fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if granted == "max" else int(granted) / int(period)


def usable(system: Path = SYSTEM) -> int:
    """Threads that make sense: the mask's cores, or what the quota is worth."""
    cores, granted = len(allowed()) or os.cpu_count() or 1, quota(system)
    return cores if granted is None else max(1, min(cores, round(granted)))


def nodes(cores: list[int], system: Path = SYSTEM) -> int:
    """Memory nodes that ``cores`` belong to."""
    return len({_node(core, system) for core in cores}) or 1


def share(cores: list[int], number: int, parts: int, system: Path = SYSTEM) -> list[int]:
    """Part ``number`` of ``parts`` of the cores: those of one memory node, and siblings of one core, stay together.

    Empty where there are fewer cores than parts.
    """
    ordered = sorted(cores, key=lambda core: (_node(core, system), _first_sibling(core, system), core))
    return ordered[number * len(cores) // parts : (number + 1) * len(cores) // parts]


def _node(core: int, system: Path) -> int:
    for path in (system / f"devices/system/cpu/cpu{core}").glob("node[0-9]*"):
        return int(path.name.removeprefix("node"))
    return 0


def _first_sibling(core: int, system: Path) -> int:
    try:
        text = (system / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return core
    return int(text.replace("-", ",").split(",")[0])
