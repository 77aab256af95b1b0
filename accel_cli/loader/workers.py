"""Read batches ahead in worker processes, in the order of every other loader."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection, util
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from accel_cli.errors import AccelError, ConfigError, HangError, Problem, ResourceError
from accel_cli.loader.base import Loader
from accel_cli.loader.choose import prefetched, worker_count
from accel_cli.loader.order import Order
from accel_cli.loader.process import Start, describe_death, kill
from accel_cli.loader.read import Reader
from accel_cli.loader.stream import RawBatch

POLL_SECONDS = 1.0
"""How often waiting for a batch looks whether the workers still live."""
OTHERWISE = "try loader=memory or loader.workers=0"


class Workers(Loader):
    """torch's DataLoader with processes that stay for the whole run; 0 of them, or a stream: read in the rank."""

    def __init__(self, config: Any, **rest: Any) -> None:
        super().__init__(config, **rest)
        device = self.finish.device.type
        self.workers = worker_count(config.workers, cores=torch.get_num_threads(), device=device)
        if self.stream is not None:
            self.workers = 0
        self.why = f"{self.workers} workers" if self.workers else Loader.why
        self._loader: DataLoader[Any] | None = None
        self._iterator: Any = None

    def read(self, first_step: int, last_step: int) -> Iterator[list[RawBatch]]:
        if not self.workers:
            yield from super().read(first_step, last_step)
            return
        sampler = self._start(first_step, last_step)
        for _ in range(first_step, last_step):
            parts = []
            for _ in range(self.micro_batches):
                batch = self._receive()
                parts.append((batch, *sampler.issued.popleft()))
            yield parts

    def close(self) -> None:
        if self._iterator is not None:
            processes = list(self._iterator._workers)
            self._loader = self._iterator = None  # asks the workers to end, and waits
            kill(processes)

    def _start(self, first_step: int, last_step: int) -> MicroBatches:
        if self._loader is None:
            # Its own generator: the DataLoader draws a seed, which would otherwise move the run's random state.
            self._loader = DataLoader(
                WorkerView(self.reader),
                batch_sampler=MicroBatches(self.order, self.micro_batches, self.keys),
                num_workers=self.workers,
                collate_fn=_as_is,
                prefetch_factor=prefetched(self.config.prefetch),
                persistent_workers=True,
                pin_memory=self.finish.device.type == "cuda",
                timeout=min(POLL_SECONDS, self.config.timeout),
                worker_init_fn=Start(),
                multiprocessing_context="fork" if sys.platform == "linux" else None,
                generator=torch.Generator(),
            )
        sampler = self._loader.batch_sampler
        assert isinstance(sampler, MicroBatches)
        sampler.set_range(first_step, last_step)
        is_first = self._iterator is None
        with _SigchldKept():
            self._iterator = iter(self._loader)
        if is_first:
            # They ignore the SIGTERM by which multiprocessing would end them before it waits for them.
            util.Finalize(self, kill, (list(self._iterator._workers),), exitpriority=100)
        return sampler

    def _receive(self) -> Any:
        start = time.monotonic()
        while True:
            try:
                batch = next(self._iterator)
            except (RuntimeError, OSError, EOFError) as error:
                # A batch on its way from a worker that was killed ends as a broken connection.
                self._raise_if_dead(error, wait=not isinstance(error, RuntimeError))
                if "timed out" not in str(error):
                    raise
                if time.monotonic() - start < self.config.timeout:
                    continue
                kill(self._iterator._workers)
                message = f"no batch came from {self.workers} loader workers in {self.config.timeout:g} s"
                longer = f"loader.timeout={self.config.timeout * 4:g}"
                raise HangError(message, f"try loader.workers=0 or {longer}") from None
            if isinstance(batch, Failure):
                batch.throw()
            return batch

    def _raise_if_dead(self, error: Exception, *, wait: bool) -> None:
        workers = list(enumerate(self._iterator._workers))
        if wait:
            # A process closes its pipes a moment before it counts as ended; joining waits for that moment.
            ending = connection.wait([worker.sentinel for _, worker in workers], POLL_SECONDS)
            for worker in (worker for _, worker in workers if worker.sentinel in ending):
                worker.join(POLL_SECONDS)
        dead = [(number, worker) for number, worker in workers if not worker.is_alive()]
        if not dead:
            return
        kill(worker for _, worker in workers)
        deaths = ", ".join(f"loader worker {number} {describe_death(worker)}" for number, worker in dead)
        raise ResourceError(deaths, OTHERWISE) from error


class MicroBatches(Sampler[Any]):
    """Hands the keys of one micro-batch after another to the workers, and remembers them for finishing."""

    def __init__(self, order: Order, micro_batches: int, keys: Any) -> None:
        self.order = order
        self.keys = keys
        self.micro_batches = micro_batches
        self.steps = range(0)
        self.issued: deque[tuple[Tensor, Tensor]] = deque()

    def set_range(self, first_step: int, last_step: int) -> None:
        self.steps = range(first_step, last_step)
        self.issued.clear()

    def __iter__(self) -> Iterator[Any]:
        for step in self.steps:
            epochs, indices = self.order.share(step)
            for part in zip(epochs.chunk(self.micro_batches), indices.chunk(self.micro_batches), strict=True):
                self.issued.append(part)
                # Arrays: a queue would send each tensor as a file descriptor.
                yield tuple(keys.numpy() for keys in self.keys(*part))


class WorkerView(Dataset[Any]):
    """The data set as a worker's fetcher sees it: a whole micro-batch at once."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitems__(self, keys: Any) -> Any:
        try:
            return self.reader(*(torch.from_numpy(k) for k in keys))
        except Exception as error:  # whatever the user's code raises is raised again in the rank
            return Failure.of(error)


@dataclass(frozen=True)
class Failure:
    """An error on its way from a worker to the rank, as text: the error itself might not survive pickling."""

    message: str
    fix: str
    problems: tuple[Problem, ...]
    trace: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        message = getattr(error, "message", f"{type(error).__name__}: {error}")
        problems = error.problems if isinstance(error, ConfigError) else ()
        return cls(message, getattr(error, "fix", ""), problems, traceback.format_exc())

    def throw(self) -> None:
        error = ConfigError(self.problems) if self.problems else AccelError(self.message, self.fix)
        error.add_note(f"In a loader worker:\n{self.trace}")
        raise error


class _SigchldKept:
    """The DataLoader's SIGCHLD handler would raise in the middle of a step; deaths are found while waiting instead."""

    def __enter__(self) -> None:
        self.is_main = threading.current_thread() is threading.main_thread()
        self.handler = signal.getsignal(signal.SIGCHLD)

    def __exit__(self, *_: object) -> None:
        if self.is_main and self.handler is not None:
            signal.signal(signal.SIGCHLD, self.handler)


def _as_is(batch: Any) -> Any:
    return batch
