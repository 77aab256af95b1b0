"""Start ranks on this machine: the agent's process, and the torchrun line that does the same elsewhere."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from accel_cli.config import preload

STALE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Left behind by other launchers; a rank must not believe them."""


@dataclass
class Agent:
    process: subprocess.Popen[bytes]
    requests: IO[bytes]
    events: int
    """The reading end of the pipe that the agent and rank 0 write to."""

    def kill(self) -> None:
        """End it and its ranks at once: they die with it."""
        self.process.kill()


def start() -> Agent:
    """Start the agent at once: its import of torch, seconds long, runs while the front composes and checks."""
    reading, writing = os.pipe()
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in STALE and not key.startswith("TORCHELASTIC") and key != "PYTHONDONTWRITEBYTECODE"
    }
    environment.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a socket's peer without a name is nothing to warn of
    environment |= waiting(environment)
    process = subprocess.Popen(
        [sys.executable, "-m", "accel_cli.launch.agent", str(writing), str(time.time())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=[writing],
        env=environment,
        start_new_session=True,
    )
    os.close(writing)
    assert process.stdin is not None
    return Agent(process, process.stdin, reading)


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """How OpenMP's threads wait for one another, unless the user has said it.

    They burn their core for milliseconds. With one other busy process on two cores a step of the default run took
    500 ms; spinning this briefly it takes tens, and alone the same 6 ms.
    """
    if "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment:
        return {}
    return {"GOMP_SPINCOUNT": "20000"}


def torchrun_line(run_yaml: Path, run: Any, plugins: list[str]) -> str:
    """The plain command that does the same on any cluster; on several nodes the same line is typed on each."""
    launch, settings = run.launch, preload.variables(run.hardware.allocator, {})
    line = ["torchrun", f"--nproc-per-node={launch.processes}", f"--max-restarts={launch.max_restarts}"]
    worker = ["-m", "accel_cli.worker", str(run_yaml)]
    for plugin in plugins:
        worker += ["--plugin", plugin]
    if launch.most_nodes == 1:
        return _set(settings) + shlex.join([*line, "--standalone", *worker])
    meeting = shlex.quote(launch.rendezvous)
    nodes = [f"--nnodes={launch.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={launch.rendezvous}"]
    settings["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if launch.interface != "auto":
        settings |= {"GLOO_SOCKET_IFNAME": launch.interface, "NCCL_SOCKET_IFNAME": launch.interface}
    here = f"$({shlex.quote(sys.executable)} -m accel_cli.launch.here {meeting})"
    name = f"--rdzv-id={run_yaml.parent.name}"
    return f"{_set(settings)}{shlex.join([*line, *nodes, name])} {here} {shlex.join(worker)}"


def _set(variables: dict[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
