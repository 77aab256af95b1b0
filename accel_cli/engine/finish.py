"""The end of a run: the test split once, and the summary."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from accel_cli.engine.bought import stored_bytes
from accel_cli.engine.costs import costs
from accel_cli.engine.evaluate import evaluate, evaluate_whole
from accel_cli.engine.loop import Progress
from accel_cli.engine.metrics import Metrics, finite
from accel_cli.engine.stop import Stop
from accel_cli.engine.summary import EMPTY, step_milliseconds
from accel_cli.engine.traffic import Traffic
from accel_cli.engine.training import Training


def summarize(
    t: Training,
    metrics: Metrics,
    progress: Progress,
    status: str,
    stop: Stop,
    traffic: Traffic,
    finished: nn.Module | None,
) -> dict[str, Any]:
    """A collective: every rank takes its part of the test split; rank 0's result is the one that is written.

    ``finished`` is the model, where it is another than the trained one.
    """
    spent = costs(t, metrics)
    test: dict[str, float] = {}
    if status != "interrupted":
        test = evaluate(t, "test") if finished is None else evaluate_whole(finished, t, "test")  # type: ignore[arg-type]
        metrics.evaluation(test)
        t.clock.mark("evaluation")
    peaks = t.world.gather((t.hardware.peak_memory(), t.hardware.peak_host_memory()))
    median = step_milliseconds(metrics.step_seconds)
    taken = len(metrics.step_seconds)
    result = copy.deepcopy(EMPTY)
    result.update(
        status=status,
        exit_code=stop.reason if status == "interrupted" else 0,
        steps=t.step,
        epochs=None if t.epoch is None else round(t.epoch, 4),
        samples=t.samples,
        global_batch=t.work.global_batch,
        world_size=t.world.world_size,
        device=t.run.hardware.option,
        strategy=t.run.strategy.option,
        precision=t.run.precision.option,
        parameters=t.whole.parameters if finished is None else sum(p.numel() for p in finished.parameters()),
        parameters_trained=t.whole.trained,
        metric={
            "name": t.task.metric,
            "mode": t.task.mode,
            "value": finite_or_none(test.get(f"test_{t.task.metric}")),
            "best": progress.best,
            "best_step": progress.best_step,
        },
        loss=metrics.last_loss,
        train_seconds=round(metrics.seconds, 4),
        time_to_target_seconds=progress.target_seconds,
        samples_per_second=round(taken * t.work.global_batch / metrics.taken_seconds, 2) if taken else None,
        step_milliseconds=median,
        utilisation=traffic.utilisation(median["median"] and median["median"] / 1e3),
        time_share=time_share(t, taken, traffic.exposed_seconds),
        costs=spent,
        peak_memory_bytes={
            "device": max((d for d, _ in peaks if d is not None), default=None),
            "host": max(h for _, h in peaks),
        },
        communication_bytes=bytes_sent(t, traffic.bytes, t.step),
        model_bytes=t.whole.bytes if finished is None else stored_bytes(finished),
    )
    if t.run.compile.option != "none" and metrics.step_seconds and median["median"] is not None:
        result["one_off_seconds"]["compile"] = round(max(0.0, metrics.step_seconds[0] - median["median"] / 1e3), 3)
    return result


def bytes_sent(t: Training, seen: int | None, steps: int) -> int | None:
    """By one rank in the first ``steps``: as the strategy counts them, else what was seen of one, times the steps."""
    counted = t.strategy.bytes_sent(t.communication, t.whole.trained_bytes, steps)
    return counted if counted is not None or seen is None else seen * steps


def time_share(t: Training, steps: int, seen: float | None) -> dict[str, float]:
    """Shares of the time that the clock marked; communication that nothing hid is taken out of the phases it lay in."""
    t.clock.lay_out()
    if t.strategy.replicas_differ:  # marks what it waits for by itself
        return t.clock.shares()
    exposed = t.strategy.exposed_communication(t.model, t.clock, steps * (seen or 0.0))
    for phase in ("backward", "forward", "optimizer"):
        moved = min(exposed, t.clock.seconds[phase])
        t.clock.seconds[phase] -= moved
        t.clock.seconds["communication"] += moved
        exposed -= moved
    return t.clock.shares()


def finite_or_none(value: float | None) -> float | None:
    return None if value is None else finite(value)
