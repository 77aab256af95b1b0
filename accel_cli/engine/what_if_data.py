"""What a step would wait for its data with another loader."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from accel_cli.config.machine import memory_available
from accel_cli.engine.costs import Spent
from accel_cli.engine.step import train_step
from accel_cli.engine.training import Training
from accel_cli.loader import stacked
from accel_cli.loader.choose import LARGEST_SHARE, MOST_WORKERS

HANDED_OVER = 0.0005
"""Seconds that a batch from another process or thread costs at least."""
SPARE = 1.25
"""How much faster than the step takes them batches should be made."""
FEWEST, MOST = 4, 32
"""Steps that are taken to time one, as many as there is time for; the first does not count."""
READS = {"loader": "", "workers": "workers", "threads": "threads"}
"""Loader's class -> the key that says how many read for it; others hold the set already, or read a stream."""


def row(t: Training, spent: Spent) -> dict[str, Any] | None:
    """Memory where the set fits there, else more that read ahead; None where neither helps."""
    loader, name = t.loader, type(t.loader).__name__.lower()
    if not spent.stands_out("data") or name not in READS or loader.stream is not None:
        return None
    waits = spent.parts["data"]
    epochs, indices = loader.order.share(0)
    samples = min(len(indices), stacked.PROBED)
    epochs, indices = epochs[:samples], indices[:samples]
    began, worked = time.perf_counter(), time.thread_time()
    raw = loader.reader(*loader.keys(epochs, indices))
    read, busy = time.perf_counter() - began, time.thread_time() - worked
    probing = read / samples * 2 * stacked.PROBED
    found = {"own": spent.step, "read": read / samples}
    if probing <= spent.limit and _fits(t):
        held = stacked.Stacked(raw, samples)
        other = _at_hand(t, spent, held, epochs, indices)
        once = read / samples * (t.description.train_samples or 0)
        return {**found, "override": "loader=memory", "other": min(spent.step, other), "once": once}
    batch = read / samples * loader.order.batch
    now = getattr(loader, READS[name], 0) if READS[name] else 0
    row = _read_ahead(t, found, spent.step - waits, batch, now, is_waiting=busy < read / 2)
    return row if row is not None and row["other"] < spent.step else None


def _at_hand(t: Training, spent: Spent, held: stacked.Stacked, epochs: Tensor, indices: Tensor) -> float:
    """Seconds of a step whose samples are in memory: real ones, one after another, where no other rank has to join in.

    Without the pauses it takes less than what the run's steps took beside their waiting: caches stay warm.
    """
    size = t.loader.order.batch // t.work.micro_batches
    places = torch.arange(size) % len(indices)
    named = epochs[places], indices[places]

    def batches() -> list[Any]:
        return [t.loader.finish(held.batch(places), *named, 0) for _ in range(t.work.micro_batches)]

    if t.world.world_size > 1:
        return spent.step - spent.parts["data"] + quickest(batches)
    t.train_mode()
    t.step = min(t.step, t.steps - 1)
    passed: list[float] = []
    while len(passed) < FEWEST or (len(passed) < MOST and sum(passed) < spent.limit):
        began = time.perf_counter()
        train_step(t, batches())
        t.hardware.synchronize()
        passed.append(time.perf_counter() - began)
    return statistics.fmean(passed[1:]) + spent.parts["other"]


def _fits(t: Training) -> bool:
    size, _ = stacked.measure(t.data.split("train"), collate=t.data.collate, seed=t.run.train.seed)
    return size is not None and size <= LARGEST_SHARE * memory_available()


def _read_ahead(
    t: Training, found: dict[str, Any], compute: float, batch: float, now: int, *, is_waiting: bool
) -> dict[str, Any] | None:
    """``compute`` and ``batch``: seconds of a step without its data, and of reading one batch."""
    key = "threads" if t.run.loader.option == "threads" else "workers"
    if not hasattr(t.run.loader, key):
        return None
    if is_waiting:  # on a disk or a network: more can wait at the same time than there are cores
        count = min(MOST_WORKERS, max(now + 1, math.ceil(SPARE * batch / max(compute, 1e-6))))
        waits = max(0.0, batch / count - compute) + HANDED_OVER
    elif now or not t.hardware.is_host:
        count = min(MOST_WORKERS, max(1, torch.get_num_threads()))
        waits = max(0.0, batch / count - compute) + HANDED_OVER
    else:  # the cores that read are those that compute
        count = min(MOST_WORKERS, torch.get_num_threads())
        waits = batch / count + HANDED_OVER
    return {**found, "override": f"loader.{key}={count}", "other": compute + waits} if count > now else None


def quickest(call: Callable[[], object], times: int = 3) -> float:
    """Seconds of the quickest of a few calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)
