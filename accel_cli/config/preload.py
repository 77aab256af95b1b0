"""Libraries that hand out memory in malloc's place: they have to be there before a process begins."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

ALLOCATORS = {"tcmalloc": "libtcmalloc_minimal.so.4", "jemalloc": "libjemalloc.so.2"}
"""Name -> library."""
FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib")
SETTINGS = {"jemalloc": {"MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}}
"""Left to itself jemalloc gives freed memory back within seconds, and a step faults it in again."""


def installed() -> dict[str, str]:
    """Those where the dynamic loader of Linux commonly looks: name -> path."""
    if sys.platform != "linux":
        return {}
    folders = [Path(folder) for top in FOLDERS for folder in (top, f"{top}/{platform.machine()}-linux-gnu")]
    found: dict[str, str] = {}
    for name, library in ALLOCATORS.items():
        for folder in folders:
            if (folder / library).exists():
                found.setdefault(name, str(folder / library))
    return found


def variables(allocator: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What a process has to be started with to have the allocator; nothing for one that needs no library."""
    if allocator not in ALLOCATORS:
        return {}
    before = [environment["LD_PRELOAD"]] if environment.get("LD_PRELOAD") else []
    preload = ":".join([installed()[allocator], *before])
    return {"LD_PRELOAD": preload, **{k: v for k, v in SETTINGS.get(allocator, {}).items() if k not in environment}}


def forget(allocator: str) -> None:
    """Keep the library to this process and its forks: what user code starts is not to have it unasked."""
    if allocator not in ALLOCATORS:
        return
    kept = [path for path in os.environ.pop("LD_PRELOAD", "").split(":") if path and ALLOCATORS[allocator] not in path]
    if kept:
        os.environ["LD_PRELOAD"] = ":".join(kept)
    for name, value in SETTINGS.get(allocator, {}).items():
        if os.environ.get(name) == value:
            del os.environ[name]


def is_loaded(allocator: str) -> bool:
    try:
        return ALLOCATORS[allocator].partition(".")[0] in Path("/proc/self/maps").read_text()
    except OSError:
        return False
