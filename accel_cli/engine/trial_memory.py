"""What ``train.micro_batch=auto`` becomes: the largest micro-batch that fits into memory, at the same global batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from accel_cli.config.decide import Decision, with_micro_batch
from accel_cli.config.run import Run
from accel_cli.config.work import share_sizes
from accel_cli.engine.trial import Trial
from accel_cli.errors import ResourceError
from accel_cli.loader.choose import gigabytes
from accel_cli.world import World

ROOM = 0.9
"""Share of the memory that a step may be seen or foreseen to take: allocators leave gaps, and other steps differ."""
STRIDE, NEAR_STRIDE = 8, 2
"""A size is at most this many times one that was seen to fit: far from the limit, and where it is foreseen to take
more than half of the room."""
FEW = 2
"""Micro-batches that tell what a step takes: the second adds to the first one's gradients."""


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
    why += ", the whole share of the global batch" if best == sizes[-1] else f"; {_beyond(sizes, needed, best)}"
    measurements = {"bytes": {str(size): need for size, need in needed.items() if math.isfinite(need)}, "limit": limit}
    return with_micro_batch(run, best), Decision("train.micro_batch", best, why, measurements)


def _beyond(sizes: Sequence[int], needed: dict[int, float], best: int) -> str:
    """What the next larger size, or the next that was tried, would have taken."""
    tried = min((size for size in needed if size > best), default=None)
    if tried is not None and math.isinf(needed[tried]):
        return f"{tried} ran out of it"
    over = tried or sizes[sizes.index(best) + 1]
    return f"{over} would take {gigabytes(needed.get(over) or _foreseen(needed, over))}"


def _needed(run: Run, hardware: Any, world: World) -> float:
    """Bytes that steps of a size take at most, the largest of all ranks; infinite if one ran out of memory."""
    hardware.forget_peak()
    with Trial(run, hardware, world) as trial:
        fits = _attempt(trial, world)
        if fits:
            trial.step(FEW)  # makes the optimizer's state, which stays
            fits = _attempt(trial, world)
        need = float(hardware.memory_taken()) if fits else math.inf
    return max(world.gather(need))


def _attempt(trial: Trial, world: World) -> bool:
    """Forward and backward of micro-batches, without an update; whether all ranks had the memory for it.

    Replicas exchange nothing here, so that none waits for another that has failed. Ranks that share matrices or
    layers talk in every forward: there the straight line has to be right, or the run ends with ResourceError.
    """
    t = trial.training
    fits = True
    try:
        if t.strategy.holds_whole:
            for batch in trial.batches()[:FEW]:
                with t.strategy.gradient_sync(t.model, last=False), t.precision.autocast():
                    t.strategy.loss(t.task, t.model, batch).float().backward()
        else:
            trial.step(FEW)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if not t.strategy.holds_whole:
            size = t.work.micro_batch
            raise ResourceError(
                f"a micro-batch of {size} ran out of memory", f"try train.micro_batch={max(1, size // 2)}"
            ) from error
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
    low = max(fitting)
    if failed is not None:
        return max((s for s in sizes if low < s <= failed // 2 and _foreseen(needed, s) <= room), default=None)

    def in_reach(size: int) -> bool:
        foreseen = _foreseen(needed, size)
        far = len(fitting) > 1 and 2 * foreseen <= room
        return foreseen <= room and size <= low * (STRIDE if far else NEAR_STRIDE)

    return max((size for size in sizes if low < size and in_reach(size)), default=None)


def _foreseen(needed: dict[int, float], size: int) -> float:
    """Bytes, by the straight line through the two largest sizes that were measured."""
    known = sorted(s for s, need in needed.items() if math.isfinite(need))[-2:]
    if len(known) < 2:
        return needed[known[0]]
    slope = max(0.0, needed[known[1]] - needed[known[0]]) / (known[1] - known[0])
    return needed[known[1]] + slope * (size - known[1])
