"""How many loader workers, or threads: the fewest whose steps are no slower than those of more; then how far ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from accel_cli.config.decide import Decision
from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.config.work import steps
from accel_cli.engine.trial import WARM, Trial, milliseconds
from accel_cli.errors import ConfigError
from accel_cli.loader.auto import decide
from accel_cli.loader.choose import MOST_WORKERS, PREFETCH
from accel_cli.world import World

LEAST_STEPS = 300
"""A shorter run is over before a better loader has paid for its search."""
SECONDS = 8.0
"""About what the search may take, and no more than the share below of the run."""
SHARE = 0.05
NEGLIGIBLE = 0.02
"""Share of a step: to wait less than this for data is not worth a worker."""
MARGIN = 0.05
"""By what share a step has to be slower to count so, and by more than the noise."""
LEAST_MEASURED = 4
FARTHER = 4
"""Batches ahead that are tried against ``PREFETCH``."""


class Pace(NamedTuple):
    """Of one step, in seconds, the same on every rank."""

    seconds: float
    waited: float
    """For its batch; in the rank itself: to read it."""
    noise: float
    """By what share one half of the steps differed from the other."""

    @property
    def waits(self) -> bool:
        return self.waited > NEGLIGIBLE * self.seconds


def asks(run: Run) -> bool:
    """Whether a measurement could settle anything, from the configuration alone; shipped data sets are arrays."""
    if run.loader.option not in ("workers", "auto") or run.loader.workers != "auto":
        return False
    return bool(run.loader.option == "workers" or run.data.option == "custom")


def settle_loader(run: Run, hardware: Any, world: World, say: Callable[[str], None]) -> tuple[Run, list[Decision]]:
    """The run with a loader that has been measured, or as it was; a collective, with one answer on every rank."""
    if run.train.epochs is None and steps(run, None) < LEAST_STEPS:
        return run, []
    data = implementation("data", run.data)(run.data, run.train.seed)
    samples = data.describe().train_samples
    if samples is None or steps(run, samples) < LEAST_STEPS:
        return run, []
    if run.loader.option == "auto":
        free = None if hardware.is_host else hardware.memory_limit(world.local_world_size)
        found = decide(data.split("train"), collate=data.collate, seed=run.train.seed, device_bytes=free)
        if world.gather(found[0])[0] != "workers":
            return run, []
    say("timing steps with more and fewer loader workers")
    with Trial(_with(run, "workers", 0), hardware, world) as trial:
        return _settled(run, _Search(run, trial, hardware, world))


class _Search:
    """What was measured, by kind and count, in the order of the counts."""

    def __init__(self, run: Run, trial: Trial, hardware: Any, world: World) -> None:
        self.run = run
        self.trial = trial
        self.hardware = hardware
        self.world = world
        self.found: dict[tuple[str, int], Pace] = {}
        self.began = time.perf_counter()
        alone = self.found["workers", 0] = self._measure(0)
        self.seconds = min(SECONDS, SHARE * alone.seconds * trial.training.steps)
        self.search()

    def search(self) -> None:
        alone = self.found["workers", 0]
        for kind in ("workers", "threads") if self.run.loader.option == "auto" else ("workers",):
            last = alone
            for count in counts(torch.get_num_threads(), alone):
                if not last.waits or (last is not alone and self._is_late()):
                    break
                try:
                    self.trial.load(_with(self.run, kind, count))
                except ConfigError:  # threads, of a data set that draws
                    break
                now = self.found[kind, count] = self._measure(count)
                if now.seconds > last.seconds * (1 + MARGIN):
                    break
                last = now

    def farther(self, kind: str, count: int) -> Pace:
        """The pace with more batches ahead."""
        self.trial.load(_with(self.run, kind, count, FARTHER))
        return self._measure(count)

    def _measure(self, count: int) -> Pace:
        """Past the first batches, for which all workers begin at once; whole rounds of them."""
        slowest = self._timed(WARM + count)[0]
        begun = getattr(self, "seconds", SECONDS) / 10
        calls = max(LEAST_MEASURED, 2 * count, min(50, int(begun / max(slowest, 1e-6))))
        halves = [self._timed(calls // 2) for _ in range(2)]
        seconds, waited = (sum(half[i] for half in halves) / 2 for i in range(2))
        return Pace(seconds, waited, abs(halves[0][0] - halves[1][0]) / min(half[0] for half in halves))

    def _timed(self, calls: int) -> tuple[float, float]:
        """(seconds, of them waited for data) of one of so many steps, averaged over ranks."""
        began, before = time.perf_counter(), self.trial.waited
        for _ in range(calls):
            self.trial.step()
        self.hardware.synchronize()
        own = (time.perf_counter() - began) / calls, (self.trial.waited - before) / calls
        found = self.world.gather(own)
        return sum(pair[0] for pair in found) / len(found), sum(pair[1] for pair in found) / len(found)

    def _is_late(self) -> bool:
        return bool(self.world.gather(time.perf_counter() - self.began > self.seconds)[0])


def _settled(run: Run, search: _Search) -> tuple[Run, list[Decision]]:
    found, alone = search.found, search.found["workers", 0]
    told = {f"{count} {kind}": round(pace.seconds, 7) for (kind, count), pace in found.items()}
    measurements = {"step_seconds": told, "read_seconds": round(alone.waited, 7)}
    best = min(found.values())
    bound = best.seconds * (1 + max(MARGIN, best.noise))
    near = [key for key, pace in found.items() if pace.seconds <= bound]
    kind, count = min(near, key=lambda key: (key[1], found[key].seconds))
    if len(found) == 1:
        why = f"reading a batch takes {milliseconds(alone.waited)} of a step of {milliseconds(alone.seconds)}"
    else:
        why = "a step takes " + ", ".join(f"{milliseconds(p.seconds)} with {n} {k}" for (k, n), p in found.items())
    decisions = [Decision("loader", kind, why, measurements)] if run.loader.option == "auto" else []
    decisions.append(Decision(f"loader.{kind}", count, why, measurements))
    prefetch, near_by = run.loader.prefetch, found[kind, count]
    if prefetch == "auto" and count and near_by.waits:
        far = search.farther(kind, count)
        is_quicker = far.seconds < near_by.seconds * (1 - max(MARGIN, far.noise, near_by.noise))
        prefetch = FARTHER if is_quicker else PREFETCH
        why = f"a step takes {milliseconds(near_by.seconds)} with {PREFETCH} batches ahead, "
        decisions.append(Decision("loader.prefetch", prefetch, f"{why}{milliseconds(far.seconds)} with {FARTHER}"))
    return _with(run, kind, count, prefetch), decisions


def _with(run: Run, kind: str, count: int, prefetch: int | str = PREFETCH) -> Run:
    return run.with_option("loader", kind).with_values("loader", **{kind: count, "prefetch": prefetch})


def counts(cores: int, alone: Pace) -> Iterator[int]:
    """1, 2, 4 ... up to the rank's cores, without those of which more than twice as many could not keep up."""
    most = min(cores, MOST_WORKERS)
    needed = alone.waited / max(alone.seconds - alone.waited, 1e-9)
    count = 1
    while count <= most:
        if count > needed / 4 or 4 * count > most:
            yield count
        count *= 2
