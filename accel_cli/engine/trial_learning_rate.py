"""What ``train.learning_rate=find`` finds: the range test, a short run of rising rates that is thrown away."""

from __future__ import annotations

import math
from typing import Any

import torch

from accel_cli.config.decide import Decision
from accel_cli.config.run import Run
from accel_cli.config.work import learning_rate
from accel_cli.data.base import Report
from accel_cli.engine.trial import Trial
from accel_cli.errors import ConfigError, Problem
from accel_cli.schedule.range_test import before_divergence, pick, sweep
from accel_cli.world import World

LOWEST, HIGHEST, COUNT = 1e-7, 10.0, 100
"""Rates of the test, each the same multiple of the one before (Smith 2017, arXiv:1506.01186)."""
"""(what, done, total), for whoever watches."""
READ = 10
"""Steps between two looks at whether the losses have left the range: each is a wait for the device."""


def find_learning_rate(run: Run, hardware: Any, world: World, progress: Report) -> tuple[Run, Decision]:
    """A collective, with the same answer on every rank. Raises ConfigError where no rate makes the loss fall."""
    rates = sweep(LOWEST, HIGHEST, COUNT)
    still = run.with_option("schedule", "constant").with_values("schedule", warmup=0, momentum=None)
    with Trial(still, hardware, world) as trial:
        losses = _losses(trial, rates, progress)
    found = pick(rates[: len(losses)], losses)
    if found is None:
        why = f"the loss falls clearly at no rate between {LOWEST:g} and {HIGHEST:g}"
        fix = "try train.learning_rate=null and a rate of your own: optimizer.learning_rate=0.001"
        raise ConfigError(Problem("train.learning_rate=find", why, fix))
    scaling = learning_rate(run) / run.optimizer.learning_rate
    rate = float(f"{found.rate / scaling:.3g}")
    curve = {f"{r:.3g}": round(loss, 5) for r, loss in zip(rates, losses, strict=False) if math.isfinite(loss)}
    run = run.with_values("optimizer", learning_rate=rate).with_values("train", learning_rate=None)
    return run, Decision("optimizer.learning_rate", rate, found.why, {"losses": curve})


def _losses(trial: Trial, rates: list[float], progress: Report) -> list[float]:
    """The loss of one step at each rate, up to where they diverge."""
    t = trial.training
    seen: list[float] = []
    rows: list[torch.Tensor] = []
    for number, rate in enumerate(rates, 1):
        t.learning_rate = rate
        report = trial.step()
        rows.append(torch.stack([report.loss / report.weight, report.norm.float(), report.skipped]))
        if number % READ and number < len(rates):
            continue
        window = torch.stack(rows, 1)
        t.strategy.reduce_report(window)
        progress("range test of learning rates", number, len(rates))
        seen += window[0].tolist()
        rows = []
        if len(before_divergence(seen)) < len(seen):
            break
    return seen
