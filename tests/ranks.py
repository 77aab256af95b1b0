"""Real ranks for tests: gloo on loopback, each rank a fork of a server that has imported torch and run no operation."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from accel_cli.config import factory
from accel_cli.config import run as run_file
from accel_cli.config.machine import detect
from accel_cli.config.plan import plan
from accel_cli.config.run import Run
from accel_cli.engine import setup
from accel_cli.engine.training import Training
from accel_cli.launch.loopback import HOST, Loopback
from accel_cli.worker import Request, die_with_parent, work

SECONDS = 60.0
CONTEXT = multiprocessing.get_context("forkserver")
# torchao's import asks torch whether there is a GPU, after which no fork of the process can use one.
FP8 = [] if detect().gpus else ["accel_cli.precision.fp8"]
CONTEXT.set_forkserver_preload(
    [
        "torch",
        "torch._dynamo",  # the first optimizer of a process imports it: seconds
        "pytest",
        "accel_cli.worker",
        "accel_cli.data.digits",
        "accel_cli.loader.memory",
        "accel_cli.strategy.ddp",
        "accel_cli.optimizer.adamw",
        "accel_cli.optimizer.sgd",
        *FP8,  # seconds too
    ]
)


class Ranks:
    """A started world; ``processes`` by rank. ``results`` waits for it and never leaves a process behind."""

    def __init__(self, fn: Callable[..., Any], world_size: int, *args: Any) -> None:
        self.rendezvous = Loopback()
        self.logs = tempfile.TemporaryDirectory()
        self.receivers: list[Connection] = []
        self.processes = []
        for rank in range(world_size):
            receiver, sender = CONTEXT.Pipe(duplex=False)
            log = str(self._log(rank))
            environment = _environment(rank, world_size, self.rendezvous.port)
            process = CONTEXT.Process(target=_rank, args=(fn, args, environment, log, sender))
            process.start()
            sender.close()
            self.receivers.append(receiver)
            self.processes.append(process)

    def results(self, seconds: float = SECONDS) -> list[Any]:
        """What ``fn`` returned, by rank. Raises what a rank raised, with its traceback and its output."""
        found: dict[int, Any] = {}
        ends = time.monotonic() + seconds
        try:
            while len(found) < len(self.receivers):
                open_ones = [r for n, r in enumerate(self.receivers) if n not in found]
                ready = wait(open_ones, timeout=max(0.0, ends - time.monotonic()))
                if not ready:
                    late = [n for n in range(len(self.receivers)) if n not in found]
                    raise TimeoutError(f"ranks {late} did not end within {seconds} s" + self._output(late[0]))
                for receiver in ready:
                    rank = self.receivers.index(receiver)  # type: ignore[arg-type]
                    found[rank] = self._result(rank)
        finally:
            self.close()
        return [found[rank] for rank in range(len(self.receivers))]

    def kill(self) -> None:
        """SIGKILL to every rank."""
        for process in self.processes:
            process.kill()

    def close(self) -> None:
        self.kill()
        for process in self.processes:
            process.join()
        self.logs.cleanup()

    def _result(self, rank: int) -> Any:
        try:
            error, value = pickle.loads(self.receivers[rank].recv_bytes())
        except EOFError:
            self.processes[rank].join(5)
            code = self.processes[rank].exitcode
            raise RuntimeError(f"rank {rank} ended with exit code {code}" + self._output(rank)) from None
        if error:
            raise RuntimeError(f"rank {rank} raised:\n{error}" + self._output(rank))
        return value

    def _log(self, rank: int) -> Path:
        return Path(self.logs.name) / f"{rank}.log"

    def _output(self, rank: int) -> str:
        log = self._log(rank)
        return f"\n--- output of rank {rank}\n{log.read_text()[-4000:]}" if log.exists() else ""


def run_ranks(fn: Callable[..., Any], world_size: int, *args: Any, seconds: float = SECONDS) -> list[Any]:
    """Call the module-level ``fn(*args)`` in ``world_size`` ranks; its results by rank."""
    return Ranks(fn, world_size, *args).results(seconds)


def compose(overrides: Sequence[str], world_size: int, plugins: Sequence[str] = ()) -> Run:
    """A checked run for ``world_size`` ranks: on the CPU, one thread each, unless the overrides say otherwise.

    Of two overrides of one key the later holds.
    """
    words = {"hardware": "hardware=cpu", "hardware.threads": "hardware.threads=1"}
    if world_size > 1:
        words |= {"strategy": "strategy=ddp", "launch.processes": f"launch.processes={world_size}"}
    words |= {word.partition("=")[0]: word for word in overrides}
    return plan(list(words.values()), plugins=plugins).run


def write_run(overrides: Sequence[str], folder: Path, world_size: int, plugins: Sequence[str] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    run_file.write(compose(overrides, world_size, plugins), folder / "run.yaml")
    return folder


def train_ranks(
    overrides: Sequence[str],
    folder: Path,
    world_size: int = 1,
    *,
    resume: bool = False,
    expect: int = 0,
    plugins: Sequence[str] = (),
    cache: Path | None = None,
) -> dict[str, Any]:
    """Train as accel's workers do; ``resume`` goes on with the run in ``folder``. Returns summary.json.

    ``plugins`` are modules on the path whose factories the run may use, such as the test's own; ``cache`` the folder of
    what a run computes once. Fails where any rank's exit code is not ``expect``.
    """
    if not resume:
        write_run(overrides, folder, world_size, plugins)
    run_ranks(train_here, world_size, str(folder), resume, expect, plugins, cache)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The records of metrics.jsonl of one kind, ``train`` or ``evaluation``."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in found if record["kind"] == kind]


def train_here(
    folder: str,
    resume: bool = False,
    expect: int | None = None,
    plugins: Sequence[str] = (),
    cache: Path | None = None,
) -> int:
    """One rank's part of a run; its exit code."""
    if cache is not None:
        os.environ["XDG_CACHE_HOME"] = str(cache)
    request = Request(folder=folder, resume=resume, plugins=list(plugins), started=time.time(), alone=True)
    code = work(request, None)
    if expect is not None:
        assert code == expect, f"exit code {code}"
    return code


def build_here(folder: str, plugins: Sequence[str] = ()) -> Training:
    """One rank's training, as a worker builds it from run.yaml; to be stepped by hand."""
    factory.grant(plugins)
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    training, _ = setup.build(run, hardware, world, print)
    training.train_mode()
    return training


def _environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """As torchelastic sets it."""
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": HOST,
        "MASTER_PORT": str(port),
    }


def _rank(fn: Callable[..., Any], args: Any, environment: dict[str, str], log: str, sender: Connection) -> None:
    die_with_parent()
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        answer = pickle.dumps(("", fn(*args)))
    except BaseException:
        answer = pickle.dumps((traceback.format_exc(), None))
    sender.send_bytes(answer)
    sender.close()
    os._exit(0)
