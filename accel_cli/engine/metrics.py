"""Metrics: metrics.jsonl, the trackers and the front, from numbers that stay on the device until they are due."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import torch

from accel_cli.engine.events import Events
from accel_cli.engine.statistics import Statistics
from accel_cli.engine.step import StepReport
from accel_cli.engine.training import Training
from accel_cli.errors import DivergedError

FOLDED = 64
"""Steps whose numbers are joined into one tensor, so that a long window stays small."""


class Metrics:
    """Every rank keeps its steps' numbers on its device; every ``metrics.every`` steps they are added and read."""

    def __init__(self, training: Training, folder: Path, events: Events, trackers: list[Any]) -> None:
        self.t = training
        self.events = events
        self.trackers = trackers
        self.every = training.run.metrics.every
        self.file: TextIO | None = (folder / "metrics.jsonl").open("a") if training.world.is_first else None
        self.begin = time.perf_counter()
        self.seconds = 0.0
        """Spent in steps so far, this attempt and those before it."""
        self.last_loss: float | None = None
        self.step_seconds: list[float] = []
        self._step_began = self.begin
        self._reports: list[StepReport] = []
        self._rows: list[torch.Tensor] = []
        self._weights: list[float] = []
        self._window_seconds = 0.0
        self._pending: tuple[dict[str, Any], list[float], Callable[[], list[Any]]] | None = None
        self._statistics = Statistics(training.bare)
        self._in_a_row = 0
        self._phase_began = 0
        self._seconds_before = 0.0
        self._first_step_ended = 0.0

    def start(self, seconds: float) -> None:
        """The first step of this attempt is about to begin; those before it took ``seconds``."""
        self.seconds = self._seconds_before = seconds
        self._step_began = time.perf_counter()

    def follow(self, training: Training) -> None:
        """The run goes on with another training, whose model has another structure."""
        self.t, self._statistics = training, Statistics(training.bare)
        self._phase_began = len(self.step_seconds)
        self.pause()

    def cut(self, cut: Callable[[], object]) -> None:
        """Let ``cut`` take records out of the file, which is not open meanwhile."""
        if self.file is not None:
            self.file.close()
            cut()
            self.file = Path(self.file.name).open("a")  # noqa: SIM115

    def pause(self) -> None:
        """What happened since the last step was no step: evaluation, checkpoint."""
        self._step_began = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        """So much of the step that goes on is no part of it."""
        self._step_began += seconds

    def step(self, report: StepReport) -> None:
        """After every step; reads nothing but the clock unless a record is due."""
        self.flush()
        self._reports.append(report)
        if len(self._reports) == FOLDED:
            self._fold()
        now = time.perf_counter()
        passed, self._step_began = now - self._step_began, now
        self.seconds += passed
        self._window_seconds += passed
        if not self.step_seconds:
            self._first_step_ended = time.time()
        self.step_seconds.append(passed)
        if self.t.step % self.every == 0 or self.t.step == self.t.steps:
            self.record()

    def _fold(self) -> None:
        """Many small tensors into one [3, steps]."""
        reports, self._reports = self._reports, []
        values = [r.loss for r in reports] + [r.norm.float() for r in reports] + [r.skipped for r in reports]
        self._rows.append(torch.stack(values).view(3, -1))
        self._weights += [r.weight for r in reports]

    def record(self) -> None:
        """Ask for the window's numbers; a device that works on meanwhile gives them one step later, without a wait."""
        if self._reports:
            self._fold()
        if not self._rows:
            return
        rows = torch.cat(self._rows, 1)
        self.t.strategy.reduce_report(rows)
        group = self.t.optimizer.param_groups[0]
        samples = len(self._weights) * self.t.work.global_batch
        facts = {
            "kind": "train",
            "step": self.t.step,
            "epoch": rounded(self.t.epoch),
            "samples": self.t.samples,
            "seconds": round(self.seconds, 4),
            "loss": None,
            "learning_rate": float(group["lr"]) / group.get("rate", 1.0),
            **self._momentum(),
            "gradient_norm": None,
            "samples_per_second": round(samples / self._window_seconds, 2) if self._window_seconds else None,
        }
        self._pending = facts, self._weights, self.t.hardware.read_later(rows)
        self._rows, self._weights, self._window_seconds = [], [], 0.0
        if not self.t.hardware.asynchronous:
            self.flush()

    def _momentum(self) -> dict[str, float]:
        """Of the last step, where it follows the schedule."""
        momentum = self.t.schedule.momentum(self.t.step - 1, self.t.steps)
        return {} if momentum is None else {"momentum": momentum}

    def flush(self) -> None:
        """Write the record that was asked for, and end the run if its numbers are none any more."""
        if self._pending is None:
            return
        (record, weights, read), self._pending = self._pending, None
        losses, norms, skipped = read()
        means = [loss / weight for loss, weight, skip in zip(losses, weights, skipped, strict=True) if not skip]
        kept = [norm for norm, skip in zip(norms, skipped, strict=True) if not skip]
        record["loss"] = self.last_loss = mean(means)
        record["gradient_norm"] = mean(kept)
        record["skipped_steps"] = int(sum(skipped))
        self._statistics.settle(skipped=any(skipped))
        self.write(record)
        self.events.emit("train", **{k: v for k, v in record.items() if k != "kind"}, steps=self.t.steps)
        for loss, skip in zip(losses, skipped, strict=True):
            self._in_a_row = self._in_a_row + 1 if skip else 0
            if self._in_a_row >= self.t.run.train.max_skipped_steps:
                self._diverged(record["step"], math.isfinite(loss))
        if any(skipped) and self.t.scaler.collapsed:
            raise DivergedError(
                f"the loss scale collapsed at step {record['step']}: every fp16 gradient overflows",
                "try precision=bf16, or a lower optimizer.learning_rate",
            )

    @property
    def phase_seconds(self) -> list[float]:
        """Of the steps of this attempt around the model as it is."""
        return self.step_seconds[self._phase_began :]

    @property
    def taken_seconds(self) -> float:
        """Spent in the steps of this attempt."""
        return self.seconds - self._seconds_before

    def first_step_seconds(self, started: float) -> float | None:
        """From the command's start, a Unix time, to the end of this attempt's first step."""
        return round(self._first_step_ended - started, 3) if self.step_seconds else None

    def evaluation(self, metrics: dict[str, float]) -> None:
        record = {
            "kind": "evaluation",
            "step": self.t.step,
            "epoch": rounded(self.t.epoch),
            "samples": self.t.samples,
            "seconds": round(self.seconds, 4),
            **{name: finite(value) for name, value in metrics.items()},
        }
        self.write(record)
        self.events.emit("evaluation", step=self.t.step, metrics={k: finite(v) for k, v in metrics.items()})

    def write(self, record: dict[str, Any]) -> None:
        if self.file is None:
            return
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        for tracker in self.trackers:
            tracker.log(record)

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
        for tracker in self.trackers:
            tracker.close()

    def _diverged(self, step: int, finite_loss: bool) -> None:
        run, times = self.t.run, f"for {self._in_a_row} steps in a row, up to step {step}"
        lower = f"optimizer.learning_rate={run.optimizer.learning_rate / 10:g}"
        if run.precision.option != "fp16":
            why, fix = f"the gradients held nan or inf {times}", f"try {lower} or train.clip_norm=1.0"
        elif finite_loss:
            scale = self.t.scaler.state()["scale"]
            why = f"the fp16 gradients overflowed {times}, the loss being finite: the loss scale fell to {scale:g}"
            fix = f"try precision=bf16, which has the range of fp32, or {lower}"
        else:
            why = f"the loss was nan or inf {times}: in fp16 any number above 65504 is"
            fix = f"try precision=bf16, which has the range of fp32, or {lower}"
        raise DivergedError(f"{why}; no weight was changed by them", fix)


def mean(values: list[float]) -> float | None:
    return finite(sum(values) / len(values)) if values else None


def finite(value: float) -> float | None:
    """JSON knows no nan."""
    return value if math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
