"""The agent: imports torch once, then forks a set of ranks for every run that it is handed.

It stays clean for forking: it starts no thread, runs no tensor operation, and never touches CUDA. It dies with the
front, and its ranks die with it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from typing import Any

import torch._dynamo  # noqa: F401 - a process's first optimizer imports it: 2 s, here once for all ranks
from torch.distributed.elastic.agent.server.api import RunResult, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from accel_cli.config import factory, parts
from accel_cli.config import run as run_file
from accel_cli.errors import NO_TIME_TO_SAVE, AccelError, ConfigError
from accel_cli.launch.loopback import Loopback
from accel_cli.worker import Request, die_with_parent, rank

MONITOR_INTERVAL = 0.02
"""Seconds between two looks at the ranks: how late their end may be noticed."""


def main() -> None:
    """Read requests from standard input, a JSON object a line, until it closes.

    The arguments are the descriptor of the pipe to answer through, and the Unix time at which this process was started.
    """
    die_with_parent()
    descriptor = int(sys.argv[1])
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    for noisy in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    import_seconds = round(time.time() - float(sys.argv[2]), 3)
    for line in sys.stdin:
        message = json.loads(line)
        request = Request(**{**message["request"], "import_seconds": import_seconds})
        say(descriptor, "ended", failures=run(request, message["processes"], descriptor))


def say(descriptor: int, event: str, **values: Any) -> None:
    os.write(descriptor, (json.dumps({"event": event, **values}) + "\n").encode())


def run(request: Request, processes: int, descriptor: int) -> list[dict[str, Any]]:
    """Fork the ranks of one run and wait for them. Returns how those that failed first ended."""
    began = time.perf_counter()
    if code := _prepare(request, descriptor):
        return [{"rank": 0, "pid": 0, "exit_code": code}]
    request = Request(**{**vars(request), "prepare_seconds": round(time.perf_counter() - began, 3)})
    spec = WorkerSpec(
        role="accel",
        local_world_size=processes,
        entrypoint=rank,
        args=(request, descriptor),
        rdzv_handler=Loopback(),
        max_restarts=0,
        monitor_interval=MONITOR_INTERVAL,
    )
    method = "spawn" if sys.platform == "darwin" else "fork"
    agent = LocalElasticAgent(spec, logs_specs=DefaultLogsSpecs(log_dir=os.devnull), start_method=method)
    result: RunResult = agent.run()
    return _ended(agent, result)


def _ended(agent: LocalElasticAgent, result: RunResult) -> list[dict[str, Any]]:
    """The ranks that ended by themselves in a failed run: first the one that was noticed, then those that just left."""
    if not result.is_failed():
        return []
    found = [{"rank": n, "pid": f.pid, "exit_code": f.exitcode} for n, f in result.failures.items()]
    context = getattr(agent._pcontext, "_pc", None)
    for number, process in enumerate(context.processes if context is not None else ()):
        if process.exitcode not in (None, -signal.SIGTERM, NO_TIME_TO_SAVE) and number not in result.failures:
            found.append({"rank": number, "pid": process.pid, "exit_code": process.exitcode})
    return found


def _prepare(request: Request, descriptor: int) -> int:
    """Download or decode in a process of its own, once, before any rank: this one stays clean."""
    run_yaml = run_file.read(request.path / "run.yaml")
    if not run_yaml.data.needs_preparing:
        return 0
    child = os.fork()
    if child == 0:
        die_with_parent()
        os._exit(_prepare_here(run_yaml, request, descriptor))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _prepare_here(run_yaml: Any, request: Request, descriptor: int) -> int:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)
    say(descriptor, "rank", rank=0, pid=os.getpid())

    def report(what: str, done: int, total: int) -> None:
        say(descriptor, "progress", what=what, done=done, total=total)

    try:
        factory.grant(request.plugins)
        data = parts.implementation("data", run_yaml.data)(run_yaml.data, run_yaml.train.seed)
        data.prepare(report)
        return 0
    except Exception as error:
        problems = [vars(p) for p in error.problems] if isinstance(error, ConfigError) else None
        code = error.exit_code if isinstance(error, AccelError) else 3
        failure = {
            "rank": 0, "step": None, "type": type(error).__name__, "message": str(getattr(error, "message", error)),
            "try": getattr(error, "fix", ""), "place": None, "exit_code": code, "problems": problems, "time": 0.0,
        }  # fmt: skip
        (request.path / "ranks" / "0.failure.json").write_text(json.dumps(failure))
        return code


if __name__ == "__main__":
    main()
