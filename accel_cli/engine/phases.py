"""One run's training from border to border: set up, step, change the model's structure, and set up again."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accel_cli.config.decide import Decision
from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.data.base import Report, quiet
from accel_cli.engine import attempts, checkpoint, checkpoint_replicas, handover, setup, summary, what_if
from accel_cli.engine.borders import Start, unreached
from accel_cli.engine.bought import Bought
from accel_cli.engine.events import Events
from accel_cli.engine.finish import summarize
from accel_cli.engine.finished import finish, forget
from accel_cli.engine.following import next_start
from accel_cli.engine.garbage import kept_out_of_steps
from accel_cli.engine.loop import Progress, train
from accel_cli.engine.metrics import Metrics
from accel_cli.engine.profile import Profile
from accel_cli.engine.stop import REGROUP, Stop
from accel_cli.engine.traffic import Traffic
from accel_cli.engine.training import Training
from accel_cli.errors import AccelError
from accel_cli.world import World


class Live:
    """The training that goes on now, if any: what a failure report wants to know."""

    training: Training | None = None


@dataclass(kw_only=True)
class Phases:
    """What a run is set up from, at its beginning and at every border."""

    run: Run
    hardware: Any
    world: World
    folder: Path
    events: Events
    live: Live
    say: Callable[[str], None]
    progress: Report

    def train(
        self, measured: list[Decision], found: handover.Found, *, restarted: bool, seconds: dict[str, Any]
    ) -> int:
        """Train to the end; returns the exit code. ``found`` is the checkpoint to go on from, None at the beginning.

        ``seconds``: ``started``, the Unix time of the command's start, and what came before: ``import``, ``prepare``.
        """
        run, world, events, folder = self.run, self.world, self.events, self.folder
        start = Start.of(None if found is None else found[0])
        bought = Bought(folder, start.step, world, self.say)
        training, decisions = setup.build(
            run, self.hardware, world, self.say, self.progress, start=start, watch=bought
        )  # fmt: skip
        self.live.training = training
        keep_decisions([*measured, *decisions], folder, world, None if restarted else events)
        progress, checkpoints = Progress(), checkpoint.Checkpoints(training, folder, folder.name)
        spent, load_seconds, border_seconds, lost = 0.0, 0.0, 0.0, 0
        if found is not None:
            began = time.perf_counter()
            spent = _restore(training, progress, checkpoints)
            load_seconds = time.perf_counter() - began
            for text in (*found[1], *checkpoint_replicas.left_behind(training, found[0])):
                events.emit("warning", text=text)
            if events.descriptor is None or not restarted:  # the front has told of a restart
                events.emit("say", text=f"resuming after step {training.step} of {training.steps}")
        if world.is_first:
            forget(folder)
            lost = attempts.cut(folder, training.step)
            attempts.begin(folder, {"from_step": training.step, "world_size": world.world_size, "time": time.time()})
        world.barrier()
        metrics = Metrics(training, folder, events, self._trackers())
        stop = Stop(world, seconds=run.train.seconds)
        stop.watch()
        profile = None
        if run.profile.enabled and world.is_first:
            profile = Profile(folder, self.hardware.activities, self.say, (training.clock, metrics))
        metrics.start(spent)
        task = training.task
        events.emit("start", step=training.step, steps=training.steps, metric=task.metric, mode=task.mode)
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
                clock, began = training.clock, time.perf_counter()
                training.loader.close()
                metrics.t = checkpoints.t = self.live.training = None  # type: ignore[assignment]
                del training, traffic  # before the next one takes as much memory
                training = self._next(following, bought)
                self.live.training = checkpoints.t = training
                training.clock = clock
                metrics.follow(training)
                if training.start.saved is not None:
                    _restore(training, progress, checkpoints)
                metrics.pause()
                border_seconds += time.perf_counter() - began
                clock.last = time.perf_counter()  # setting up is no part of training, here as at the beginning
            finished, began = None, time.perf_counter()
            if status != "interrupted":
                for text in unreached(training.parts, training.start.changes, training.step, training.steps):
                    events.emit("warning", text=text)
                finished = finish(training, folder, bought)
            if finished is not None:
                border_seconds += time.perf_counter() - began
                training.clock.last = time.perf_counter()
            result = summarize(training, metrics, progress, status, stop, traffic, finished)
            if status != "interrupted" and finished is None:
                result["what_if"] = what_if.look(training, result["costs"]["step"])
            if world.is_first:
                result.update(
                    attempts=attempts.count(folder),
                    lost_steps=lost,
                    wall_seconds=round(time.time() - seconds["started"], 3),
                    first_step_seconds=metrics.first_step_seconds(seconds["started"]),
                    compression=bought.rows,
                )
                one_off = {"import": seconds["import"], "prepare": seconds["prepare"], "checkpoint_load": load_seconds}
                borders = {"compression": round(border_seconds, 3)} if border_seconds else {}
                result["one_off_seconds"].update(one_off | borders)
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
            if self.live.training is not None:
                self.live.training.loader.close()
        return int(result["exit_code"])

    def _next(self, start: Start, bought: Bought) -> Training:
        """Another structure, and all else as it was: what the user was told at the beginning, she is not told again."""
        gc.collect()
        self.hardware.release_memory()
        return setup.build(self.run, self.hardware, self.world, lambda text: None, quiet, start=start, watch=bought)[0]

    def _trackers(self) -> list[Any]:
        if not self.world.is_first:
            return []
        return [implementation("tracking", option)(option, self.folder) for option in self.run.tracking.values()]


def keep_decisions(decisions: list[Decision], folder: Path, world: World, events: Events | None) -> None:
    """Add them to decisions.json, and tell the user through ``events``; a key decided again keeps its first reason."""
    if not world.is_first:
        return
    path = folder / "decisions.json"
    old = json.loads(path.read_text()) if path.exists() else []
    known = {entry["key"] for entry in old}
    new = [decision.to_dict() for decision in decisions]
    summary.write_json(path, old + [entry for entry in new if entry["key"] not in known])
    for decision in decisions if events is not None else ():
        events.emit("decision", key=decision.key, value=decision.value, why=decision.why)  # type: ignore[union-attr]


def _restore(training: Training, progress: Progress, checkpoints: checkpoint.Checkpoints) -> float:
    """Put back what the start holds; returns the seconds that its steps took."""
    assert training.start.saved is not None
    state = checkpoint.restore(training, training.start.saved)
    progress.load(state)
    checkpoints.best = {int(step): value for step, value in state["best"].items()}
    checkpoints.last_saved = training.step
    return float(state["seconds"])
