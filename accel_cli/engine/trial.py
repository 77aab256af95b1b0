"""Trial: a training that is stepped to be measured, and thrown away before the one that counts is built."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch

from accel_cli.config.run import Run
from accel_cli.engine.batches import loader_for
from accel_cli.engine.setup import build
from accel_cli.engine.step import StepReport, train_step
from accel_cli.world import World

WARM = 2
"""Calls of each arm that no clock sees: buffers, optimizer state and kernels are made at the first."""
TURNS = 5
"""Turns of each arm: a neighbour's burst strikes some of them, and the quickest counts."""
LONGEST_TURN = 50
"""Calls in a turn at most."""


class Trial:
    """The whole of a training under some run: model, data, strategy and optimizer, on every rank alike.

    Nothing that it does is kept: the training that counts is built from the seed again. So it needs no way back, under
    any strategy, and what it measures is what a run will do.
    """

    def __init__(self, run: Run, hardware: Any, world: World) -> None:
        self._hardware = hardware
        self.training, _ = build(run, hardware, world, lambda line: None)
        self.training.train_mode()
        self.waited = 0.0
        """Seconds, for batches."""
        self._batches: Iterator[list[Any]] = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._batches = iter(())
        self.training.loader.close()
        del self.training
        torch._dynamo.reset()
        gc.collect()
        self._hardware.release_memory()

    def batches(self) -> list[Any]:
        """This rank's micro-batches of the next global batch; from the first one again when the run has no more."""
        found = next(self._batches, None)
        if found is None:
            self._batches = self.training.loader.batches(0, self.training.steps)
            found = next(self._batches)
        return found

    def go_to(self, step: int) -> None:
        """Go on with the batches of another step."""
        self.training.step = min(step, self.training.steps - 1)
        self._batches = self.training.loader.batches(self.training.step, self.training.steps)

    def load(self, run: Run) -> None:
        """Go on with the loader of another run, from the first batch again."""
        self._batches = iter(())
        self.training.loader.close()
        self.training.loader = loader_for(run, self.training)

    def step(self, micro_batches: int | None = None) -> StepReport:
        """One real step: data, forward, backward, the exchange between ranks, the optimizer.

        ``micro_batches`` leaves out those of a rank beyond the first few.
        """
        t, began = self.training, time.perf_counter()
        batches = self.batches()[:micro_batches]
        self.waited += time.perf_counter() - began
        report = train_step(t, batches)
        t.step = min(t.step + 1, t.steps - 1)
        return report


class Pace(NamedTuple):
    seconds: float
    """Of one call, undisturbed."""
    floor: float
    """By what share the same call differed from itself, taken as two arms."""


def race(arms: Mapping[str, Callable[[], object]], hardware: Any, world: World, seconds: float) -> dict[str, Pace]:
    """How long a call of each arm takes; a collective, with the same answer on every rank.

    The first arm takes two places, and what lies between the two is the noise of this machine now. Arms take turns;
    the quickest turn of each counts, averaged over ranks. ``seconds`` is about what the whole may take.
    """
    first = next(iter(arms))
    places = [*arms, first]
    slowest = 0.0
    for name in arms:
        for _ in range(WARM):
            arms[name]()
        slowest = max(slowest, _timed(arms[name], 1, hardware))
    slowest = max(world.gather(slowest))
    calls = max(1, min(LONGEST_TURN, math.floor(seconds / (slowest * len(places) * TURNS))))
    quickest = [math.inf] * len(places)
    for _ in range(TURNS):
        for place, name in enumerate(places):
            quickest[place] = min(quickest[place], _timed(arms[name], calls, hardware) / calls)
    together = world.sum(torch.tensor(quickest, device=world.device)) / world.world_size
    *found, again = together.tolist()
    floor = abs(again - found[0]) / min(again, found[0])
    found[0] = min(again, found[0])
    return {name: Pace(value, floor) for name, value in zip(arms, found, strict=True)}


def contest(runs: Mapping[str, Run], hardware: Any, world: World, seconds: float) -> dict[str, Pace]:
    """How long a step takes under each run; a collective. They take turns where the host's memory holds them all.

    On an accelerator, whose memory is dear and whose clock is steady, they come one after another.
    """
    if hardware.is_host:
        with ExitStack() as stack:
            trials = {name: stack.enter_context(Trial(run, hardware, world)) for name, run in runs.items()}
            return race({name: trial.step for name, trial in trials.items()}, hardware, world, seconds)
    found: dict[str, Pace] = {}
    for name, run in runs.items():
        with Trial(run, hardware, world) as trial:
            found |= race({name: trial.step}, hardware, world, seconds / len(runs))
    return found


def _timed(call: Callable[[], object], calls: int, hardware: Any) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        call()
    hardware.synchronize()
    return time.perf_counter() - began


def clearly_faster(candidate: Pace, default: Pace, margin: float) -> bool:
    """Whether a candidate's step is quicker by more than ``margin``, a share, and by more than the noise."""
    return candidate.seconds < default.seconds * (1.0 - max(margin, candidate.floor, default.floor))


def steps_within(run: Run, steps: int, step_seconds: float) -> int:
    """Of the run's steps, those that its time budget leaves at this pace."""
    budget = run.train.seconds
    return steps if budget is None else min(steps, math.ceil(budget / step_seconds))


def milliseconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms"
