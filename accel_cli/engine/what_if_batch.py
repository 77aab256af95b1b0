"""What a step would take with a batch several times as large."""

from __future__ import annotations

import time
from typing import Any

import torch

from accel_cli.engine.costs import Spent
from accel_cli.engine.training import Training
from accel_cli.loader.finish import map_tensors

TIMES = 4
"""How much larger the other batch is."""
SMALL_BATCH, SHORT_STEP = 16, {True: 0.002, False: 0.02}
"""Samples, or seconds of a step on the host or another device, up to which fixed costs may be what a step consists of.
"""
ROUNDS = 5


def row(t: Training, spent: Spent) -> dict[str, Any] | None:
    """Forward and backward of a real batch, and of one that holds it several times; one process only.

    The larger one is no larger than what evaluation takes, so that it fits.
    """
    size = t.loader.order.batch
    small = size <= SMALL_BATCH or spent.step <= SHORT_STEP[t.hardware.is_host]
    fits = TIMES * size <= max(t.run.evaluate.batch, TIMES) and t.work.micro_batches == 1
    works = t.run.compile.option == "none" and t.loader.stream is None and t.run.loader.option != "stream"
    compute = spent.parts["forward"] + spent.parts["backward"]
    if not (small and fits and works) or t.world.world_size > 1 or 2 * (1 + TIMES) * compute > spent.limit:
        return None
    epochs, indices = t.loader.order.share(0)
    batch = t.loader.finish(t.loader.reader(*t.loader.keys(epochs, indices)), epochs, indices, 0)
    larger = map_tensors(lambda x: torch.cat([x] * TIMES) if x.dim() and len(x) == size else x, batch)
    t.train_mode()
    rounds = max(2, min(ROUNDS, int(spent.limit / ((1 + TIMES) * compute))))
    turns = [(_seconds(t, batch), _seconds(t, larger)) for _ in range(rounds)]  # the first of each warms up
    own, other = (min(each[1:]) for each in zip(*turns, strict=True))
    found = {
        "times": TIMES,
        "gathered": t.loader.reader.is_array,
        "override": f"train.global_batch={TIMES * t.work.global_batch}",
    }
    return {**found, "own": own, "other": other}


def _seconds(t: Training, batch: Any) -> float:
    t.hardware.synchronize()
    began = time.perf_counter()
    t.strategy.forward_backward(t, [batch])
    t.hardware.synchronize()
    passed = time.perf_counter() - began
    for parameter in t.parameters:
        parameter.grad = None
    return passed
