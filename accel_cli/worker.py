"""One rank: read run.yaml, build, train, report.

Started by accel's own agent, or by hand on any cluster:

    torchrun --nproc-per-node 2 -m accel_cli.worker runs/X/run.yaml [--resume] [--plugin my_pkg] [--events FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accel_cli.config import factory
from accel_cli.config import run as run_file
from accel_cli.config.decide import decided_in, settled_before
from accel_cli.config.parts import implementation, table
from accel_cli.config.run import Run
from accel_cli.engine import (
    attempts,
    checkpoint,
    deep_check,
    failure,
    handover,
    reference,
    setup,
)
from accel_cli.engine.borders import Start
from accel_cli.engine.evaluate import evaluate, evaluate_whole
from accel_cli.engine.events import Events
from accel_cli.engine.export import export
from accel_cli.engine.folder import once_a_node
from accel_cli.engine.phases import Live, Phases, keep_decisions
from accel_cli.engine.probe import serve
from accel_cli.engine.settle import settle
from accel_cli.engine.whole import FINISHED, saved_model, whole_model
from accel_cli.world import World, leave, ranks_from_environment


@dataclass(frozen=True)
class Request:
    """All that the front tells a rank; everything else is in run.yaml."""

    folder: str
    mode: str = "train"
    """train, evaluate, export, check, probe or reference"""
    resume: bool = False
    alone: bool = False
    """Whether no front writes the summary of a run that fails."""
    restarted: bool = False
    """Whether the launcher has started these ranks before: a resume, unless nothing is saved yet."""
    plugins: list[str] = field(default_factory=list)
    started: float = 0.0
    """Unix time of the command's start."""
    import_seconds: float = 0.0
    prepare_seconds: float = 0.0
    split: str = "test"
    which: str = "latest"
    link: str = ""
    """The socket through which a probe is told what to do."""
    export: dict[str, Any] | None = None
    """The option of the group that is asked for; None: the run's own."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @property
    def path(self) -> Path:
        return Path(self.folder)


def main() -> None:
    """The command line under torchrun."""
    parser = argparse.ArgumentParser(prog="python -m accel_cli.worker", description=__doc__)
    parser.add_argument("run", type=Path, help="path of a run.yaml, in its run folder")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--plugin", action="append", default=[], help="a module, file or folder that may be imported")
    parser.add_argument("--events", type=Path, help="append what rank 0 tells to this file, a JSON object a line")
    arguments = parser.parse_args()
    request = Request(
        folder=str(arguments.run.resolve().parent),
        resume=arguments.resume,
        restarted=started_again(),
        plugins=arguments.plugin,
        started=time.time(),
    )
    events = None
    if arguments.events is not None and ranks_from_environment()[0] == 0:
        events = os.open(arguments.events, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    code = work_alone(request, events)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def work_alone(request: Request, descriptor: int | None = None) -> int:
    """A rank that no front has started: rank 0 exports what came of the run by itself."""
    request = replace(request, alone=True)
    code = work(request, descriptor)
    run = run_file.read(request.path / "run.yaml") if code == 0 and ranks_from_environment()[0] == 0 else None
    if run is None or run.export.option == "none":
        return code
    return work(replace(request, mode="export"), descriptor)


def started_again() -> bool:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def rank(request: Request, descriptor: int) -> None:
    """The entry of a rank that the agent has forked: output goes to its own file, events to the front."""
    die_with_parent()
    number = ranks_from_environment()[0]
    log = os.open(request.path / "ranks" / f"{number}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(each, signal.SIG_DFL)
    with contextlib.suppress(OSError):
        os.write(descriptor, (json.dumps({"event": "rank", "rank": number, "pid": os.getpid()}) + "\n").encode())
    code = work(replace(request, restarted=started_again()), descriptor)
    sys.stdout.flush()
    sys.stderr.flush()
    if code:
        os._exit(code)


def die_with_parent() -> None:
    """SIGKILL for this process when the one that forked it is gone (Linux); a parent already gone counts."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)
    if os.getppid() != parent or parent == 1:
        os._exit(143)


def work(request: Request, descriptor: int | None) -> int:
    """Do what was asked; returns this rank's exit code. A failure is left in ranks/<rank>.failure.json."""
    number = ranks_from_environment()[0]
    events = Events(descriptor, active=number == 0)
    factory.grant(request.plugins)
    live = Live()
    try:
        run = run_file.read(request.path / "run.yaml")
        if request.mode == "check":
            deep_check.check(run)
            return 0
        if request.mode == "export":
            return _export(run, request, events)
        return _run(run, request, events, live)
    except (Exception, KeyboardInterrupt) as error:
        sys.stdout.flush()
        sys.stderr.flush()
        if descriptor is not None:
            events.emit("failing", position=os.fstat(1).st_size)
        traceback.print_exc()
        found = failure.describe(error, number, live.training.step if live.training is not None else None)
        failure.leave(request.path, found)
        if request.alone and number == 0 and request.mode == "train":
            failure.end_without_front(request.path, run_file.read(request.path / "run.yaml").to_tree(), found)
        return int(found["exit_code"])
    finally:
        with contextlib.suppress(Exception):
            leave()


def _run(run: Run, request: Request, events: Events, live: Live) -> int:
    hardware, world = setup.enter(run)
    if request.mode == "reference":
        reference.serve(hardware, world, Path(request.link))
        return 0
    prepared = time.perf_counter()

    def say(text: str) -> None:
        events.emit("say", text=text)

    def progress(what: str, done: int, total: int) -> None:
        events.emit("progress", what=what, done=done, total=total)

    if run.data.needs_preparing:
        data = implementation("data", run.data)(run.data, run.train.seed)
        with once_a_node(request.path / ".prepare"):
            data.prepare(progress)
    prepare_seconds = request.prepare_seconds + time.perf_counter() - prepared
    # The first rank's: a node may lack the folder.
    run = settled_before(run, world.gather(decided_in(request.path))[0])
    if request.mode == "evaluate":
        return _evaluate(run, hardware, world, request, events, live)
    run, measured = settle(run, hardware, world, say, progress)
    folder = request.path
    if request.mode == "probe":
        keep_decisions(measured, folder, world, events)
        serve(run, hardware, world, Path(request.link), prepare_seconds)
        return 0
    restarted = request.restarted or (run.launch.elastic and attempts.begun(folder))
    found = handover.newest(world, folder, resume=request.resume, restarted=restarted)
    phases = Phases(
        run=run, hardware=hardware, world=world, folder=folder, events=events, live=live, say=say, progress=progress
    )  # fmt: skip
    seconds = {
        "started": request.started, "import": request.import_seconds, "prepare": round(prepare_seconds, 3),
    }  # fmt: skip
    return phases.train(measured, found, restarted=restarted, seconds=seconds)


def _evaluate(run: Run, hardware: Any, world: World, request: Request, events: Events, live: Live) -> int:
    saved, passed = saved_model(request.path, request.which)
    is_finished = saved.folder.name == FINISHED
    start = Start() if is_finished else Start.of(saved)
    training, decisions = setup.build(run, hardware, world, lambda text: None, start=start, learns=False)
    live.training = training
    if is_finished:
        model = whole_model(run, training.description, saved).to(world.device)
        found = evaluate_whole(model, training, request.split)  # type: ignore[arg-type]
    else:
        checkpoint.restore(training, saved)
        found = evaluate(training, request.split)
    for text in passed:
        events.emit("warning", text=text)
    events.emit("result", step=saved.step, split=request.split, metrics=found)
    return 0


def _export(run: Run, request: Request, events: Events) -> int:
    """On the host, whatever the run was trained on."""
    run = settled_before(run, decided_in(request.path)).with_option("hardware", "cpu")
    if request.export is not None:
        schema = table("export")[request.export["option"]].schema
        run = replace(run, export=schema.model_validate(request.export))
    hardware = implementation("hardware", run.hardware)(run.hardware)
    hardware.start(hardware.device(0), "none")

    def progress(what: str, done: int, total: int) -> None:
        events.emit("progress", what=what, done=done, total=total)

    events.emit("result", **export(run, request.path, request.which, run.export, progress))
    return 0


if __name__ == "__main__":
    main()
