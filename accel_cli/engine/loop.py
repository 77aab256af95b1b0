"""Step until done; evaluate, save and report each on its own beat."""

from __future__ import annotations

import math

from accel_cli.engine.checkpoint import Checkpoints, Outcome
from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.events import Events
from accel_cli.engine.garbage import collect
from accel_cli.engine.metrics import Metrics
from accel_cli.engine.step import train_step
from accel_cli.engine.stop import TIME_BUDGET, Stop
from accel_cli.engine.traffic import Traffic
from accel_cli.engine.training import Training

AT_BORDER = "at_border"
"""The model's structure is to change before the next step."""


class Progress:
    """What the loop carries from step to step besides the training itself, and a checkpoint keeps."""

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_step: int | None = None
        self.latest: dict[str, float] = {}
        self.evaluated_step = -1
        self.target_seconds: float | None = None

    def state(self) -> dict[str, object]:
        return {"progress": dict(vars(self))}

    def load(self, state: dict[str, object]) -> None:
        vars(self).update(state["progress"])  # type: ignore[call-overload]


def train(
    t: Training,
    metrics: Metrics,
    checkpoints: Checkpoints,
    stop: Stop,
    progress: Progress,
    events: Events,
    traffic: Traffic,
) -> str:
    """Train to the next border, or until something ends the run. Returns the status: ``AT_BORDER`` where it goes on."""
    evaluate_every = beat(t, t.run.evaluate.every)
    save_every = beat(t, t.run.checkpoint.every)
    status = "completed"
    batches = t.loader.batches(t.step, t.steps)
    t.train_mode()
    t.clock.mark("other")
    t.loader.watch(t.clock.mark)
    if t.hardware.asynchronous:
        t.clock.watch(t.step, t.hardware.synchronize)
    while t.step < t.border:
        if stop.before(t.step):
            status = "completed" if stop.reason == TIME_BUDGET else "interrupted"
            break
        t.clock.begin(t.step)
        micro_batches = next(batches)
        t.clock.mark("data")
        report = (traffic.step if t.step in traffic.steps else train_step)(t, micro_batches)
        t.step += 1
        metrics.step(report)
        t.clock.mark("other")

        evaluates, saves = due(t, evaluate_every), due(t, save_every)
        if evaluates or saves:  # a record's window ends wherever a resume may begin
            metrics.record()
            metrics.flush()
        if evaluates:
            ended = validate(t, metrics, progress)
            status = ended or status
        if saves or evaluates and ended:
            save(t, checkpoints, metrics, progress, events)
        collect(t.step, everything=evaluates or saves)
        if evaluates or saves:
            metrics.pause()
        if evaluates and ended:
            break
    else:
        status = AT_BORDER if t.step < t.steps else status
    metrics.record()
    metrics.flush()
    if status not in ("interrupted", AT_BORDER) and progress.evaluated_step != t.step:
        validate(t, metrics, progress)
    if checkpoints.last_saved != t.step:
        save(t, checkpoints, metrics, progress, events)
    tell(checkpoints.finish(), events)
    t.clock.mark("checkpoint")
    return status


def beat(t: Training, every: int | str) -> int:
    """Steps between two events; ``epoch`` without a length, as of a stream, is once at the end."""
    if every != "epoch":
        return int(every)
    size = t.description.train_samples
    return math.ceil(size / t.work.global_batch) if size else t.steps


def due(t: Training, every: int) -> bool:
    return t.step % every == 0 or t.step == t.steps


def validate(t: Training, metrics: Metrics, progress: Progress) -> str | None:
    """Evaluate on validation; tell schedule and stopping. Returns the status to end with, if any."""
    found = evaluate(t, "validation")
    metrics.evaluation(found)
    value = found[f"validation_{t.task.metric}"]
    better = progress.best is None or (value > progress.best if t.task.mode == "max" else value < progress.best)
    if better and math.isfinite(value):
        progress.best, progress.best_step = value, t.step
    progress.latest, progress.evaluated_step = found, t.step
    t.schedule.observe(value, t.task.mode)
    status: str | None = t.stopping.observe(t.step, found)
    if status == "target_reached":
        progress.target_seconds = metrics.seconds
    t.clock.mark("evaluation")
    return status


def save(t: Training, checkpoints: Checkpoints, metrics: Metrics, progress: Progress, events: Events) -> None:
    value = progress.latest.get(f"validation_{t.task.metric}") if progress.evaluated_step == t.step else None
    tell(checkpoints.save({"seconds": metrics.seconds, **progress.state()}, value), events)
    t.clock.mark("checkpoint")


def tell(outcomes: list[Outcome], events: Events) -> None:
    for step, warning in outcomes:
        if warning:
            events.emit("warning", text=warning)
        else:
            events.emit("checkpoint", step=step)
