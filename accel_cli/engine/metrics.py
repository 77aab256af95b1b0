"""Metrics: metrics.jsonl, the trackers and the front, from numbers that stay on the device until they are due."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, TextIO

import torch

from accel_cli.engine.events import Events
from accel_cli.engine.step import StepReport
from accel_cli.engine.training import Training
from accel_cli.errors import DivergedError


class Metrics:
    """Every rank keeps sums on its device; every ``metrics.every`` steps they are added over ranks and read."""

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
        self._window: torch.Tensor | None = None
        self._count = 0
        self._window_seconds = 0.0
        self._in_a_row: torch.Tensor | None = None
        self._seconds_before = 0.0
        self._first_step_ended = 0.0

    def start(self, seconds: float) -> None:
        """The first step of this attempt is about to begin; those before it took ``seconds``."""
        self.seconds = self._seconds_before = seconds
        self._step_began = time.perf_counter()

    def pause(self) -> None:
        """What happened since the last step was no step: evaluation, checkpoint."""
        self._step_began = time.perf_counter()

    def step(self, report: StepReport) -> None:
        """After every step; reads nothing but the clock unless a record is due."""
        loss_and_norm = torch.stack((report.loss.float(), report.norm.float()))
        row = torch.cat((loss_and_norm.masked_fill_(report.skipped > 0, 0.0), report.skipped.view(1)))
        kept = report.skipped if self._in_a_row is None else (self._in_a_row + 1) * report.skipped
        self._in_a_row = kept
        self._window = row if self._window is None else self._window + row
        self._count += 1
        now = time.perf_counter()
        passed, self._step_began = now - self._step_began, now
        self.seconds += passed
        self._window_seconds += passed
        if not self.step_seconds:
            self._first_step_ended = time.time()
        self.step_seconds.append(passed)
        if self.t.step % self.every == 0 or self.t.step == self.t.steps:
            self.record()

    def record(self) -> None:
        """Read the window's sums, write a train record, and end the run if its numbers are none any more."""
        if self._window is None or self._in_a_row is None:
            return
        loss_sum = self.t.world.sum(self._window[:1].clone())
        values = torch.cat((loss_sum, self._window[1:], self._in_a_row.view(1))).tolist()
        skipped, in_a_row = int(values[2]), int(values[3])
        taken = self._count - skipped
        loss, norm = (values[0] / taken, values[1] / taken) if taken else (math.nan, math.nan)
        samples = self._count * self.t.work.global_batch
        rate = samples / self._window_seconds if self._window_seconds else None
        self.last_loss = finite(loss)
        record = {
            "kind": "train",
            "step": self.t.step,
            "epoch": rounded(self.t.epoch),
            "samples": self.t.samples,
            "seconds": round(self.seconds, 4),
            "loss": finite(loss),
            "learning_rate": self.t.optimizer.param_groups[0]["lr"] / self.t.optimizer.param_groups[0].get("rate", 1.0),
            "gradient_norm": finite(norm),
            "samples_per_second": None if rate is None else round(rate, 2),
            "skipped_steps": skipped,
        }
        self.write(record)
        self.events.emit("train", **{k: v for k, v in record.items() if k != "kind"}, steps=self.t.steps)
        self._window, self._count, self._window_seconds = None, 0, 0.0
        if in_a_row >= self.t.run.train.max_skipped_steps:
            self._diverged(in_a_row)
        if self.t.scaler.collapsed:
            raise DivergedError(
                f"the loss scale collapsed at step {self.t.step}: every fp16 gradient overflows",
                "try precision=bf16, or a lower optimizer.learning_rate",
            )

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

    def _diverged(self, in_a_row: int) -> None:
        rate = self.t.optimizer.param_groups[0]["lr"]
        raise DivergedError(
            f"the gradients held nan or inf for {in_a_row} steps in a row, up to step {self.t.step}; no weight was changed",
            f"try optimizer.learning_rate={self.t.run.optimizer.learning_rate / 10:g} (now {rate:g}) or train.clip_norm=1.0",
        )


def finite(value: float) -> float | None:
    """JSON knows no nan."""
    return value if math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def cut(path: Path, attempts: Path, step: int, attempt: int) -> int:
    """Move the records after ``step`` out of metrics.jsonl into ``attempts/``, as a resume goes back to ``step``.

    Returns how many steps are lost. A half-written last line is dropped.
    """
    if not path.exists():
        return 0
    kept, removed, furthest = [], [], step
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if record["step"] > step:
            removed.append(line)
            furthest = max(furthest, record["step"])
        else:
            kept.append(line)
    if removed:
        attempts.mkdir(exist_ok=True)
        (attempts / f"attempt-{attempt}.jsonl").write_text("".join(line + "\n" for line in removed))
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept))
    partial.replace(path)
    return furthest - step
