"""Read, decode and finish batches ahead in threads beside the step, in the order of every other loader."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor

from accel_cli.errors import HangError
from accel_cli.loader.base import Loader
from accel_cli.loader.choose import prefetched, thread_count
from accel_cli.loader.read import Collate, Reader
from accel_cli.loader.stacked import refusal
from accel_cli.loader.varies import varies

Job = tuple[Future[Any], int, Tensor, Tensor]
"""(where the batch will be, step, epochs, indices) of a micro-batch."""


class Threads(Loader):
    """For reading that releases the interpreter's lock, as files, Pillow, numpy and torch do.

    Random generators belong to a process: a data set that draws would draw from the run's own, so it is refused. A
    stream is read in the rank.
    """

    def __init__(self, config: Any, *, dataset: Any, collate: Collate | None, seed: int, **rest: Any) -> None:
        """Raise ConfigError for a data set that is not the same at each read."""
        super().__init__(config, dataset=dataset, collate=collate, seed=seed, **rest)
        self.threads = 0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._team: list[threading.Thread] = []
        if self.stream is not None:
            return
        if reason := self.sharing.agree(lambda: varies(dataset, collate=collate, seed=seed)):
            raise refusal("threads", f"{reason}, and random generators are shared by threads")
        self.reader = Reader(dataset, collate=collate, seed=None)
        self.threads = thread_count(config.threads, cores=torch.get_num_threads())
        self.why = f"{self.threads} threads"

    def batches(self, first_step: int, last_step: int) -> Iterator[list[Any]]:
        if self.stream is not None:
            yield from super().batches(first_step, last_step)
            return
        self._start()
        ahead: deque[Future[Any]] = deque()
        most = self.threads * prefetched(self.config.prefetch)
        jobs = self._micro_batches(first_step, last_step)
        try:
            for _ in range(first_step, last_step):
                found = []
                for _ in range(self.micro_batches):
                    # One is asked for as one is taken: so many are under way, or done and waiting.
                    while len(ahead) < most and (job := next(jobs, None)) is not None:
                        ahead.append(job[0])
                        self._jobs.put(job)
                    found.append(self._wait(ahead.popleft()))
                yield found
        finally:
            for future in ahead:
                future.cancel()

    def watch(self, mark: Callable[[str], object]) -> None:
        """Batches are moved beside the step: what it waits for is data."""

    def close(self) -> None:
        """End the threads. One that hangs in the data set's own code ends with the process."""
        for _ in self._team:
            self._jobs.put(None)
        for thread in self._team:
            thread.join(0.2)
        self._team = []

    def _micro_batches(self, first_step: int, last_step: int) -> Iterator[Job]:
        for step in range(first_step, last_step):
            epochs, indices = self.order.share(step)
            parts = zip(epochs.chunk(self.micro_batches), indices.chunk(self.micro_batches), strict=True)
            for part in parts:
                yield Future(), step, *part

    def _wait(self, future: Future[Any]) -> Any:
        timeout = self.config.timeout
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():  # the data set's own
                raise
            hung = len(self._team)
            self.close()
            self._jobs = SimpleQueue()
            message = f"no batch came from {hung} loader threads in {timeout:g} s"
            raise HangError(message, f"try loader=workers or loader.timeout={timeout * 4:g}") from None

    def _start(self) -> None:
        if self._team:
            return
        own, started = torch.get_num_threads(), threading.Barrier(self.threads + 1)
        for number in range(self.threads):
            arguments = (self._jobs, started)
            thread = threading.Thread(target=self._work, args=arguments, name=f"loader-{number}", daemon=True)
            thread.start()
            self._team.append(thread)
        started.wait()
        torch.set_num_threads(own)

    def _work(self, jobs: SimpleQueue[Job | None], started: threading.Barrier) -> None:
        torch.set_num_threads(1)  # of this thread, and the default of later ones: the rank sets its own again
        started.wait()
        while (job := jobs.get()) is not None:
            future, step, epochs, indices = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                raw = self.reader(*self.keys(epochs, indices))
                future.set_result(self.finish(raw, epochs, indices, step))
            except BaseException as error:
                future.set_exception(error)
            del job, future
