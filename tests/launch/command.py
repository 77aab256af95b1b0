"""The real command line, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NETS = '''
import os, signal, time
import torch
from torch import nn

class Net(nn.Module):
    """Slow on purpose, and able to fail on one rank at one step."""

    def __init__(self, classes=10, delay=0.02, rank=1, step=None, how="raise"):
        super().__init__()
        self.layer = nn.Linear(64, classes)
        self.delay, self.rank, self.step, self.how, self.count = delay, rank, step, how, 0

    def forward(self, x):
        if self.training:
            time.sleep(self.delay)
            self.count += 1
            if self.step and self.count > self.step and int(os.environ.get("RANK", 0)) == self.rank:
                if self.how == "raise":
                    raise ValueError("my own bug")
                if self.how == "exit":
                    os._exit(int(7))
                if self.how == "leave":
                    os._exit(0)
                if self.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.how == "hang":
                    time.sleep(1000)
        return self.layer(x.flatten(1))
'''
CUSTOM = ["model=custom", "model.factory=nets:Net", "--plugin", "nets.py"]


def accel(*words: str, folder: Path, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``accel WORDS`` in ``folder``, with no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "accel_cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        env={**clean_environment(), **environment},
    )


def start(*words: str, folder: Path) -> subprocess.Popen[str]:
    """The same, left running; its processes can be found by ``ACCEL_TEST`` in their environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "accel_cli", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**clean_environment(), "ACCEL_TEST": str(folder)},
        start_new_session=True,
    )


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def run_folder(folder: Path) -> Path:
    (found,) = (folder / "runs").iterdir()
    return found


def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def wait_for_step(folder: Path, step: int, timeout: float = 60) -> Path:
    """Wait until a run below ``folder`` has recorded ``step``."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for metrics in folder.glob("runs/*/metrics.jsonl"):
            lines = metrics.read_text().splitlines()
            if lines and json.loads(lines[-1])["step"] >= step:
                return metrics.parent
        time.sleep(0.05)
    raise TimeoutError(f"no step {step} below {folder}")


def left_behind(folder: Path) -> list[int]:
    """Processes that ``start`` in this folder left, by their environment."""
    found = []
    mark = f"ACCEL_TEST={folder}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            state = (path.parent / "stat").read_text().rpartition(")")[2].split()[0]
            if mark in path.read_bytes().split(b"\0") and state != "Z":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def wait_until_gone(folder: Path, seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (found := left_behind(folder)) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def ranks_of(folder: Path, launcher: int) -> list[int]:
    """Process ids of the ranks: grandchildren of the launcher."""
    return [child for agent in children(launcher) for child in children(agent)]


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


SIGNALS = {130: signal.SIGINT, 75: signal.SIGTERM}
