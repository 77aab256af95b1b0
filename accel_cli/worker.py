"""One rank: read run.yaml, build, train, report.

Started by accel's own agent, or by hand on any cluster:

    torchrun --nproc-per-node 2 -m accel_cli.worker runs/X/run.yaml [--resume] [--plugin my_pkg]
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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from accel_cli.config import factory
from accel_cli.config import run as run_file
from accel_cli.config.decide import Decision, decided_in, settled_before
from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.data.base import Report, quiet
from accel_cli.engine import (
    attempts,
    checkpoint,
    checkpoint_replicas,
    deep_check,
    failure,
    handover,
    setup,
    summary,
)
from accel_cli.engine.borders import Start, Watch, unreached
from accel_cli.engine.bought import Bought
from accel_cli.engine.evaluate import evaluate, evaluate_whole
from accel_cli.engine.events import Events
from accel_cli.engine.finish import summarize
from accel_cli.engine.finished import finish, forget
from accel_cli.engine.folder import once_a_node
from accel_cli.engine.garbage import kept_out_of_steps
from accel_cli.engine.loop import Progress, train
from accel_cli.engine.metrics import Metrics
from accel_cli.engine.phases import next_start
from accel_cli.engine.profile import Profile
from accel_cli.engine.settle import settle
from accel_cli.engine.stop import REGROUP, Stop
from accel_cli.engine.traffic import Traffic
from accel_cli.engine.training import Training
from accel_cli.engine.whole import FINISHED, saved_model, whole_model
from accel_cli.errors import AccelError
from accel_cli.world import World, leave, ranks_from_environment


@dataclass(frozen=True)
class Request:
    """All that the front tells a rank; everything else is in run.yaml."""

    folder: str
    mode: str = "train"
    """train, evaluate or check"""
    resume: bool = False
    restarted: bool = False
    """Whether the launcher has started these ranks before: a resume, unless nothing is saved yet."""
    plugins: list[str] = field(default_factory=list)
    started: float = 0.0
    """Unix time of the command's start."""
    import_seconds: float = 0.0
    prepare_seconds: float = 0.0
    split: str = "test"
    which: str = "latest"

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
    arguments = parser.parse_args()
    request = Request(
        folder=str(arguments.run.resolve().parent),
        resume=arguments.resume,
        restarted=started_again(),
        plugins=arguments.plugin,
        started=time.time(),
    )
    code = work(request, None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


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
    state = _State()
    try:
        run = run_file.read(request.path / "run.yaml")
        if request.mode == "check":
            deep_check.check(run)
            return 0
        return _run(run, request, events, state)
    except (Exception, KeyboardInterrupt) as error:
        sys.stdout.flush()
        sys.stderr.flush()
        if descriptor is not None:
            events.emit("failing", position=os.fstat(1).st_size)
        traceback.print_exc()
        found = failure.describe(error, number, state.training.step if state.training is not None else None)
        failure.leave(request.path, found)
        if descriptor is None and number == 0 and request.mode == "train":
            failure.end_without_front(request.path, run_file.read(request.path / "run.yaml").to_tree(), found)
        return int(found["exit_code"])
    finally:
        with contextlib.suppress(Exception):
            leave()


class _State:
    """What a failure report wants to know."""

    training: Training | None = None


def _run(run: Run, request: Request, events: Events, state: _State) -> int:
    hardware, world = setup.enter(run)
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
    run, measured = settle(run, hardware, world, say, progress) if request.mode == "train" else (run, [])
    if request.mode == "evaluate":
        return _evaluate(run, hardware, world, request, events, state)
    started = Started(run, hardware, world, request, events, state, say, progress)
    return _train(started, measured, prepare_seconds)


class Started(NamedTuple):
    """What training is set up from, at its beginning and at every border."""

    run: Run
    hardware: Any
    world: World
    request: Request
    events: Events
    state: _State
    say: Callable[[str], None]
    progress: Report

    def build(self, start: Start, watch: Watch, *, anew: bool) -> tuple[Training, list[Decision]]:
        """What the user was told at the first beginning, she is not told again."""
        say = self.say if anew else lambda text: None
        report = self.progress if anew else quiet
        training, decisions = setup.build(
            self.run, self.hardware, self.world, say, report, start=start, watch=watch
        )  # fmt: skip
        self.state.training = training
        return training, decisions


def _train(started: Started, measured: list[Decision], prepare_seconds: float) -> int:
    run, world, events, request, say = started.run, started.world, started.events, started.request, started.say
    folder = request.path
    progress, lost, load_seconds = Progress(), 0, 0.0
    restarted = request.restarted or (run.launch.elastic and attempts.begun(folder))
    found = handover.newest(world, folder, resume=request.resume, restarted=restarted)
    start = Start.of(None if found is None else found[0])
    bought = Bought(folder, start.step, say)
    training, decisions = started.build(start, bought, anew=True)
    _tell_decisions(started, [*measured, *decisions])
    checkpoints = checkpoint.Checkpoints(training, folder, folder.name)
    seconds = 0.0
    if found is not None:
        began = time.perf_counter()
        seconds = _restore(training, progress, checkpoints)
        load_seconds = time.perf_counter() - began
        saved, passed = found
        for text in (*passed, *checkpoint_replicas.left_behind(training, saved)):
            events.emit("warning", text=text)
        if events.descriptor is None or not restarted:  # the front has told of a restart
            events.emit("say", text=f"resuming after step {training.step} of {training.steps}")
    if world.is_first:
        forget(folder)
        lost = attempts.cut(folder, training.step)
        attempts.begin(folder, {"from_step": training.step, "world_size": world.world_size, "time": time.time()})
    world.barrier()
    trackers = _trackers(run, folder, world)
    metrics = Metrics(training, folder, events, trackers)
    stop = Stop(world, seconds=run.train.seconds)
    stop.watch()
    profile = Profile(folder, training.hardware.activities) if run.profile.enabled and world.is_first else None
    metrics.start(seconds)
    events.emit("start", step=training.step, steps=training.steps)
    try:
        while True:
            if profile is not None:
                training.after_step = (*training.after_step, profile.after_step)
            traffic = Traffic(training)
            checkpoints.pinned = bought.undecided(training)
            with kept_out_of_steps():
                status = train(training, metrics, checkpoints, stop, progress, events, traffic)
            bought.took(summary.step_milliseconds(metrics.phase_seconds)["median"], world)
            following = None if status == "interrupted" else next_start(training, status, folder, bought, progress)
            if following is None:
                break
            if following.step < training.step and world.is_first:
                metrics.cut(partial(attempts.cut, folder, following.step))
            training = _go_on(started, training, following, bought, metrics, checkpoints, progress)
        finished = None
        if status != "interrupted":
            for text in unreached(training.parts, training.start.changes, training.step, training.steps):
                events.emit("warning", text=text)
            finished = finish(training, folder, bought)
        result = summarize(training, metrics, progress, status, stop, traffic, finished)
        if world.is_first:
            result.update(
                attempts=attempts.count(folder),
                lost_steps=lost,
                wall_seconds=round(time.time() - request.started, 3),
                first_step_seconds=metrics.first_step_seconds(request.started),
                compression=bought.rows,
            )
            result["one_off_seconds"].update(
                {
                    "import": request.import_seconds,
                    "prepare": round(prepare_seconds, 3),
                    "checkpoint_load": load_seconds,
                }
            )
            if result["exit_code"] != REGROUP:
                summary.write_json(folder / "summary.json", result)
        world.barrier()
    finally:
        stop.close()
        with contextlib.suppress(AccelError):  # a save that failed again is not what ended the run
            checkpoints.finish()
        if profile is not None:
            profile.close()
        metrics.close()
        training.loader.close()
    return int(result["exit_code"])


def _go_on(
    started: Started,
    before: Training,
    start: Start,
    bought: Bought,
    metrics: Metrics,
    checkpoints: checkpoint.Checkpoints,
    progress: Progress,
) -> Training:
    """The training of the next phase: another structure, and all else as it was."""
    clock = before.clock
    before.loader.close()
    training, _ = started.build(start, bought, anew=False)
    training.clock = clock
    checkpoints.t = training
    if start.saved is not None:
        _restore(training, progress, checkpoints)
    metrics.follow(training)
    clock.mark("other")
    return training


def _restore(training: Training, progress: Progress, checkpoints: checkpoint.Checkpoints) -> float:
    """Put back what the start holds; returns the seconds that its steps took."""
    assert training.start.saved is not None
    state = checkpoint.restore(training, training.start.saved)
    progress.load(state)
    checkpoints.best = {int(step): value for step, value in state["best"].items()}
    checkpoints.last_saved = training.step
    return float(state["seconds"])


def _tell_decisions(started: Started, decisions: list[Decision]) -> None:
    if not started.world.is_first:
        return
    record_decisions(started.request.path, [decision.to_dict() for decision in decisions])
    for decision in decisions if not started.request.restarted else ():
        started.events.emit("decision", key=decision.key, value=decision.value, why=decision.why)


def _trackers(run: Run, folder: Path, world: World) -> list[Any]:
    if not world.is_first:
        return []
    return [implementation("tracking", option)(option, folder) for option in run.tracking.values()]


def _evaluate(run: Run, hardware: Any, world: World, request: Request, events: Events, state: _State) -> int:
    saved, passed = saved_model(request.path, request.which)
    is_finished = saved.folder.name == FINISHED
    start = Start() if is_finished else Start.of(saved)
    training, decisions = setup.build(run, hardware, world, lambda text: None, start=start, learns=False)
    state.training = training
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


def record_decisions(folder: Path, new: list[dict[str, Any]]) -> None:
    """Add to decisions.json; a key decided again keeps its first reason if the value is the same."""
    path = folder / "decisions.json"
    old = json.loads(path.read_text()) if path.exists() else []
    known = {entry["key"] for entry in old}
    summary.write_json(path, old + [entry for entry in new if entry["key"] not in known])


if __name__ == "__main__":
    main()
