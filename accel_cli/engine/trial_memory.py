"""What ``train.micro_batch=auto`` becomes: the largest micro-batch that fits into memory, at the same global batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from accel_cli.config.decide import Decision
from accel_cli.config.run import Run
from accel_cli.config.work import share_sizes
from accel_cli.engine.trial import Trial
from accel_cli.errors import ResourceError
from accel_cli.world import World

ROOM = 0.9
"""Share of the memory that a step may be seen or foreseen to take: allocators leave gaps, and other steps differ."""
STRIDE = 8
"""A size that nothing is known of is at most this many times one that was seen to fit."""


def find_micro_batch(run: Run, hardware: Any, world: World) -> tuple[Run, Decision]:
    """A collective, with the same answer on every rank.

    Sizes rise, each tried by real steps. The next one is as large as a straight line through the last two says that
    all ranks have room for; one that runs out of memory all the same, on any rank, ends the search at the size before
    it. Raises ResourceError where not even the smallest fits.
    """
    with Trial(run.with_values("train", micro_batch=None), hardware, world) as trial:
        sizes = share_sizes(trial.training.work.micro_batch)
    limit = min(world.gather(hardware.memory_limit(world.local_world_size)))
    needed: dict[int, float] = {}
    size = sizes[0]
    while True:
        needed[size] = _needed(run.with_values("train", micro_batch=size), hardware, world)
        following = _following(sizes, needed, ROOM * limit)
        if following is None:
            break
        size = following
    fitting = [size for size, need in needed.items() if need <= ROOM * limit]
    if not fitting:
        raise ResourceError(
            f"a micro-batch of {sizes[0]} needs more than the {gigabytes(limit)} that a process has",
            "try train.activation_checkpointing=blocks, strategy=fsdp, or a smaller model",
        )
    best = max(fitting)
    why = f"a step of {best} takes {gigabytes(needed[best])} of the {gigabytes(limit)} that a process has"
    if best < sizes[-1]:
        over = sizes[sizes.index(best) + 1]
        taken = needed.get(over, math.inf)
        amount = gigabytes(taken) if math.isfinite(taken) else gigabytes(_foreseen(needed, over))
        why += f"; {over} {'ran out of it' if taken == math.inf else f'would take {amount}'}"
    else:
        why += ", the whole share of the global batch"
    measurements = {"bytes": {str(size): need for size, need in needed.items() if math.isfinite(need)}, "limit": limit}
    return run.with_values("train", micro_batch=best), Decision("train.micro_batch", best, why, measurements)


def _needed(run: Run, hardware: Any, world: World) -> float:
    """Bytes that steps of a size take at most, the largest of all ranks; infinite if one ran out of memory."""
    hardware.forget_peak()
    with Trial(run, hardware, world) as trial:
        fits = _attempt(trial, world)
        if fits:
            trial.step()  # makes the optimizer's state, which stays
            fits = _attempt(trial, world)
        need = float(hardware.memory_taken()) if fits else math.inf
    return max(world.gather(need))


def _attempt(trial: Trial, world: World) -> bool:
    """Forward and backward of every micro-batch, without an update; whether all ranks had the memory for it.

    Replicas exchange nothing here, so that none waits for another that has failed. Ranks that share matrices or
    layers talk in every forward: there the straight line has to be right, or the run ends.
    """
    t = trial.training
    if not t.strategy.holds_whole:
        trial.step()
        return True
    fits = True
    try:
        for batch in trial.batches()[:2]:  # two: the second adds to the first one's gradients
            with t.strategy.gradient_sync(t.model, last=False), t.precision.autocast():
                t.strategy.loss(t.task, t.model, batch).float().backward()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        fits = False
    for parameter in t.parameters:
        parameter.grad = None
    return all(world.gather(fits))


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _following(sizes: Sequence[int], needed: dict[int, float], room: float) -> int | None:
    """The next size to try: larger while there is room, at most half of one that failed; None when all is known."""
    fitting = [size for size, need in needed.items() if need <= room]
    failed = min((size for size, need in needed.items() if need > room), default=None)
    if not fitting:
        return None
    low, stride = max(fitting), STRIDE if len(needed) > 1 else 2
    high = low * stride if failed is None else failed // 2
    open_to = [size for size in sizes if low < size <= high]
    return max((s for s in open_to if len(fitting) < 2 or _foreseen(needed, s) <= room), default=None)


def _foreseen(needed: dict[int, float], size: int) -> float:
    """Bytes, by the straight line through the two largest sizes that were measured."""
    known = sorted(s for s, need in needed.items() if math.isfinite(need))[-2:]
    if len(known) < 2:
        return math.inf
    slope = max(0.0, needed[known[1]] - needed[known[0]]) / (known[1] - known[0])
    return needed[known[1]] + slope * (size - known[1])


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
