"""The agent: imports torch once, then forks a set of ranks for every run that it is handed.

It stays clean for forking: it starts no thread, runs no tensor operation, and never touches CUDA. It dies with the
front, and its ranks die with it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from itertools import chain
from typing import Any

from torch.distributed import Store

from accel_cli.config import factory, parts, preload
from accel_cli.config import run as run_file
from accel_cli.engine.folder import once_a_node
from accel_cli.errors import AccelError, ConfigError
from accel_cli.launch import first_failure
from accel_cli.launch.first_failure import Failure
from accel_cli.launch.here import Here
from accel_cli.launch.loopback import Loopback
from accel_cli.launch.meeting import Meeting, meet
from accel_cli.launch.rounds import Rounds, say
from accel_cli.worker import Request, die_with_parent


def main() -> None:
    """Read requests from standard input, a JSON object a line, until it closes.

    Writes a byte to the socket when it is ready. A request that ``forks`` is served by a process of its own, beside
    whatever else is served: the pipe to answer through comes by the socket. The arguments are the descriptor of the
    pipe to answer through otherwise, that of the socket, the Unix time at which this process was started, and where it
    had to start again for another allocator: which it has now, and the request that asked for it.
    """
    die_with_parent()
    descriptor = int(sys.argv[1])
    handed = socket.socket(fileno=int(sys.argv[2]))
    preloaded, *waiting = sys.argv[4:] or [""]
    preload.forget(preloaded)
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_IGN)
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    for noisy in ("torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    gc.freeze()  # what torch brought is walked by no rank's collector, whose marks would copy its pages
    import_seconds = round(time.time() - float(sys.argv[3]), 3)
    handed.send(b".")
    for line in chain(waiting, sys.stdin):
        message = json.loads(line)
        if compiles(message) or (message.get("forks") and message["settings"]["optimizer"]["option"] == "custom"):
            importlib.import_module("torch._dynamo")  # 2 s, here once for all ranks
        forked = message.pop("forks", False)
        if forked:
            reap()
            _, (descriptor, *_), _, _ = socket.recv_fds(handed, 1, 1)
            if os.fork():
                os.close(descriptor)
                continue
            die_with_parent()
            os.environ.update(message.pop("environment"))
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the requests are the warm one's
            say(descriptor, "agent", pid=os.getpid())
        wanted = message["settings"]["hardware"]["allocator"]
        wanted = wanted if wanted in preload.ALLOCATORS else ""
        if wanted != preloaded and message["request"]["mode"] == "train":
            start_again(wanted, json.dumps(message), descriptor)
        request = Request(**{**message["request"], "import_seconds": import_seconds})
        say(descriptor, "ended", **run(request, message, descriptor))
        if forked:
            os._exit(0)


def reap() -> None:
    """Let go of forked agents that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def compiles(message: dict[str, Any]) -> bool:
    """Whether ranks will import torch's compiler: to compile, or because wrappers of several ranks ask it things."""
    settings = message["settings"]
    return message["processes"] > 1 or message["here"] is not None or settings["compile"]["option"] != "none"


def start_again(allocator: str, line: str, descriptor: int) -> None:
    """Become a process with another allocator: a library can take malloc's place only as a process begins."""
    if allocator:
        say(descriptor, "say", text=f"starting again with {allocator} preloaded: torch is imported twice")
    os.set_inheritable(descriptor, True)
    environment = {**os.environ, **preload.variables(allocator, os.environ)}
    words = ["-m", "accel_cli.launch.agent", str(descriptor), *sys.argv[2:4], allocator, line]
    os.execve(sys.executable, [sys.executable, *words], environment)


def run(request: Request, message: dict[str, Any], descriptor: int) -> dict[str, Any]:
    """Fork the ranks of one run and wait for them. Returns how it ended on this node: a code, and a failure or none."""
    began = time.perf_counter()
    if code := _prepare(request, descriptor):
        return _failed(first_failure.find(request.path, [{"rank": 0, "pid": 0, "exit_code": code}]))
    request = Request(**{**vars(request), "prepare_seconds": round(time.perf_counter() - began, 3)})
    meeting: Loopback | Meeting
    if message["here"] is None:
        meeting = Loopback()
        store: Store = meeting.store
    else:
        place = Here(**message["here"])
        found = "this is it" if place.first else f"it is {place.host}"
        say(descriptor, "say", text=f"waiting for the nodes to meet at the first one ({found}), port {place.port}")
        try:
            meeting, store = meet(place, message["settings"])
        except AccelError as error:
            return _failed(first_failure.told(error))
    try:
        return Rounds(meeting, store, request, message["processes"], message["max_restarts"], descriptor).end()
    finally:
        meeting.leave()


def _failed(failure: Failure) -> dict[str, Any]:
    return {"code": failure.exit_code, "failure": asdict(failure)}


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
        with once_a_node(request.path / ".prepare"):
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
