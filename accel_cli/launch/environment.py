"""environment.json: versions, devices and the commit that a run was made with."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from accel_cli import __version__
from accel_cli.config.machine import detect, version

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "hydra-core",
    "omegaconf",
    "pydantic",
    "safetensors",
    "timm",
    "transformers",
)


def environment() -> dict[str, Any]:
    """Facts only; no environment variable's value is kept."""
    return {
        "accel": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": os.uname().nodename,
        "packages": {name: version(name) for name in PACKAGES},
        "machine": detect().to_dict(),
        "git": commit(Path.cwd()),
    }


def commit(folder: Path) -> dict[str, Any] | None:
    """The commit that the working directory is at, and whether files differ from it."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=5)
        if head.returncode:
            return None
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"commit": head.stdout.strip(), "changed": bool(changed.stdout.strip())}
