"""Start ranks on this machine: the agent's process, and the torchrun line that does the same elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from accel_cli.config import preload

STALE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Left behind by other launchers; a rank must not believe them."""


class Agent:
    """The process that has torch imported, and serves runs one after another.

    ``events`` is the reading end of the pipe that it and rank 0 write to.
    """

    def __init__(self) -> None:
        """Start it at once: its import of torch, seconds long, runs while the front composes and checks."""
        self.events, writing = os.pipe()
        self._handing, taking = socket.socketpair()
        self._lock = threading.Lock()
        words = ["-m", "accel_cli.launch.agent", str(writing), str(taking.fileno()), str(time.time())]
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[writing, taking.fileno()],
            env=environment(),
            start_new_session=True,
        )
        os.close(writing)
        taking.close()
        assert self.process.stdin is not None
        self._requests: IO[bytes] = self.process.stdin

    def send(self, message: dict[str, Any]) -> None:
        """Hand it a run. An agent that has gone shows by the end of its events."""
        with contextlib.suppress(BrokenPipeError):
            self._write(message)

    def fork(self, message: dict[str, Any], events: int) -> None:
        """Let it fork an agent for this run alone, which writes to ``events``; thread-safe."""
        with self._lock, contextlib.suppress(BrokenPipeError):
            socket.send_fds(self._handing, [b"."], [events])
            self._write({**message, "forks": True})

    def wait_until_warm(self) -> None:
        """Until it has torch imported, or has gone."""
        with contextlib.suppress(OSError):
            self._handing.recv(1)

    def _write(self, message: dict[str, Any]) -> None:
        self._requests.write((json.dumps(message) + "\n").encode())
        self._requests.flush()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """End it and its ranks at once: they die with it."""
        self.process.kill()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._requests.close()
        self._handing.close()
        self.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self.events)


class Forked:
    """An agent for one run, forked from a warm one: any number of them work beside each other.

    ``environment`` is set in it and its ranks over what the warm one was started with.
    """

    PATIENCE = 30.0
    """Seconds that the warm one may still be importing torch when this one is to be killed."""

    def __init__(self, warm: Agent, environment: Mapping[str, str] | None = None) -> None:
        self.warm, self.environment = warm, dict(environment or {})
        self.events, self._writing = os.pipe()
        self._pid: int | None = None
        self._sent = False

    def send(self, message: dict[str, Any]) -> None:
        self.warm.fork({**message, "environment": self.environment}, self._writing)
        os.close(self._writing)
        self._sent = True
        self._pid = self._told()

    def _told(self) -> int | None:
        """The process's number, which it writes first; None where there is no such process any more."""
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self.events], [], [], self.PATIENCE)[0] or not (byte := os.read(self.events, 1)):
                return None
            line += byte
        return int(json.loads(line)["pid"])

    @property
    def lives(self) -> bool:
        return self.warm.lives

    def kill(self) -> None:
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        if not self._sent:
            os.close(self._writing)
        os.close(self.events)


def environment() -> dict[str, str]:
    """What the agent is started with."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in STALE and not key.startswith("TORCHELASTIC") and key != "PYTHONDONTWRITEBYTECODE"
    }
    kept.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    kept.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a socket's peer without a name is nothing to warn of
    return kept | waiting(kept)


def waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """How OpenMP's threads wait for one another, unless the user has said it.

    They burn their core for milliseconds. With one other busy process on two cores a step of the default run took
    500 ms; spinning this briefly it takes tens, and alone the same 6 ms.
    """
    if "OMP_WAIT_POLICY" in environment or "GOMP_SPINCOUNT" in environment:
        return {}
    return {"GOMP_SPINCOUNT": "20000"}


def worker_words(run_yaml: Path, plugins: list[str]) -> list[str]:
    """What torchrun is to run."""
    return ["-m", "accel_cli.worker", str(run_yaml), *(word for plugin in plugins for word in ("--plugin", plugin))]


def torchrun_line(run_yaml: Path, run: Any, plugins: list[str]) -> str:
    """The plain command that does the same on any cluster; on several nodes the same line is typed on each."""
    launch, settings = run.launch, preload.variables(run.hardware.allocator, {})
    line = ["torchrun", f"--nproc-per-node={launch.processes}", f"--max-restarts={launch.max_restarts}"]
    worker = worker_words(run_yaml, plugins)
    if launch.most_nodes == 1:
        return set_words(settings) + shlex.join([*line, "--standalone", *worker])
    meeting = shlex.quote(launch.rendezvous)
    nodes = [f"--nnodes={launch.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={launch.rendezvous}"]
    settings["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    if launch.interface != "auto":
        settings |= {"GLOO_SOCKET_IFNAME": launch.interface, "NCCL_SOCKET_IFNAME": launch.interface}
    here = f"$({shlex.quote(sys.executable)} -m accel_cli.launch.here {meeting})"
    name = f"--rdzv-id={run_yaml.parent.name}"
    return f"{set_words(settings)}{shlex.join([*line, *nodes, name])} {here} {shlex.join(worker)}"


def set_words(variables: dict[str, str]) -> str:
    """A shell's words that set variables for the command that follows."""
    return "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
