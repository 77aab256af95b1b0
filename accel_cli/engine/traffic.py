"""Traffic: what a rank sends in a step, how long it only waits, how much it computes, seen at a few steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from accel_cli.engine.step import StepReport, train_step
from accel_cli.engine.training import Training

FIRST, COUNT = 2, 3
"""Of an attempt's steps these are looked at: the first ones build buckets and buffers."""
PARTS = {
    "allreduce": lambda n: 2 * (n - 1) / n,
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "allgather": lambda n: n - 1,
    "all_gather": lambda n: n - 1,
    "reduce_scatter": lambda n: (n - 1) / n,
    "alltoall": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: (n - 1) / n,
    "send": lambda n: 1,
}
"""Collective -> what a rank sends of its own input in a group of n: rings, as gloo and nccl run them."""
INPUT_SECOND = ("_allgather_base", "_reduce_scatter_base", "alltoall_base")
"""These take their output first."""


class Traffic:
    """Every rank looks at its own steps; the loop asks for it at those in ``steps`` only."""

    def __init__(self, training: Training) -> None:
        first = max(training.step, training.communication.steady_from) + FIRST
        self._peak = training.hardware.peak_flops(training.precision.dtype)
        # Under a dispatch mode a compiled model would run as it was written.
        eager = training.run.compile.option == "none"
        watched = eager and (training.world.world_size > 1 or self._peak is not None)
        self.steps = range(first, first + COUNT) if watched else range(0)
        self._bytes: list[int] = []
        self._waits: list[float] = []
        self._operations: list[int] = []

    def step(self, training: Training, batches: Sequence[Any]) -> StepReport:
        """The same step, watched."""
        counter: Any = training.hardware.operation_counter() if self._peak is not None else nullcontext()
        with _Collectives() as seen, _timed_waits() as waits, counter:
            report = train_step(training, batches)
        if self._peak is not None:
            self._operations.append(counter.get_total_flops())
        self._bytes.append(seen.bytes)
        self._waits.append(sum(waits) + seen.seconds)
        return report

    @property
    def bytes(self) -> int | None:
        """Sent by this rank in a step; None where no step was watched."""
        return round(statistics.median(self._bytes)) if self._bytes else None

    @property
    def exposed_seconds(self) -> float | None:
        """Of a step, in which this rank only waited; None where no step was watched."""
        return statistics.median(self._waits) if self._waits else None

    def utilisation(self, step_seconds: float | None) -> float | None:
        """The share of the device's peak that the matrix products and convolutions of a step come to (Chowdhery et al.
        2022, arXiv 2204.02311, appendix B); None where the peak is not known, or no step was watched."""
        if not self._operations or not step_seconds or self._peak is None:
            return None
        return statistics.median(self._operations) / step_seconds / self._peak


class _Collectives(TorchDispatchMode):
    """Adds up what collectives send, and the time in those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.seconds = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace not in ("c10d", "_c10d_functional"):
            return func(*args, **(kwargs or {}))
        self.bytes += sent(func.__name__.partition(".")[0], args)
        began = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        if "wait" in func.__name__:
            self.seconds += time.perf_counter() - began
        return result


def sent(name: str, args: Sequence[Any]) -> int:
    """Bytes that one rank sends in a collective of the dispatcher, from its name and arguments."""
    part = next((part for key, part in PARTS.items() if key in name), None)
    if part is None:
        return 0
    source = args[1] if name.startswith(INPUT_SECOND) else args[0]
    own = sum(x.numel() * x.element_size() for x in tree_leaves(source) if isinstance(x, torch.Tensor))
    return round(part(_group_size(args)) * own)


def _group_size(args: Sequence[Any]) -> int:
    for value in args:
        if isinstance(value, str) and value not in ("sum", "avg", "max", "min", "product"):
            return dist.distributed_c10d._resolve_process_group(value).size()  # type: ignore[arg-type]
        if isinstance(value, torch.ScriptObject):
            try:
                return dist.ProcessGroup.unbox(value).size()
            except (RuntimeError, TypeError):  # the operation to reduce by is such an object too
                continue
    return dist.get_world_size()


@contextmanager
def _timed_waits() -> Iterator[list[float]]:
    """Seconds of every wait for a collective inside, as they come."""
    waits: list[float] = []
    wait = dist.Work.wait

    def timed(self: dist.Work, *args: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return wait(self, *args, **named)
        finally:
            waits.append(time.perf_counter() - began)

    dist.Work.wait = timed  # type: ignore[method-assign]
    try:
        yield waits
    finally:
        dist.Work.wait = wait  # type: ignore[method-assign]
