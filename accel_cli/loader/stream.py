"""Batches from a stream: an iterable data set that only ever gives the next sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.order import Order, key
from accel_cli.loader.randomness import get_state, restored, seed_sample, set_state
from accel_cli.loader.read import Collate

RawBatch = tuple[Any, Tensor, Tensor]


def is_stream(dataset: Any) -> bool:
    return isinstance(dataset, IterableDataset)


class Stream:
    """Every rank reads the whole stream and keeps its places of each global batch.

    At its end the stream is iterated anew, after ``set_epoch(epoch)`` where it has that. It sees a random state of its
    own, seeded by (seed, epoch), so that all ranks meet the same samples, and a resumed run, which reads and drops
    what came before, meets those that it would have met.
    """

    def __init__(self, dataset: Any, *, order: Order, collate: Collate | None, seed: int) -> None:
        self.dataset = dataset
        self.order = order
        self.collate = collate or default_collate
        self.seed = seed
        self._iterator: Iterator[Any] | None = None
        self._state: tuple[Any, ...] | None = None
        self._epoch = self._place = self._read = 0

    def read(self, first_step: int, last_step: int, micro_batches: int) -> Iterator[list[RawBatch]]:
        """One list of ``micro_batches`` raw batches a step."""
        if first_step * self.order.global_batch < self._read:
            self._restart()
        for step in range(first_step, last_step):
            start = step * self.order.global_batch + self.order.rank * self.order.batch
            with restored():
                if self._state is not None:
                    set_state(self._state)
                while self._read < start:
                    self._next()
                samples = [self._next() for _ in range(self.order.batch)]
                self._state = get_state()
            size = self.order.batch // micro_batches
            yield [self._collate(samples[m * size : (m + 1) * size]) for m in range(micro_batches)]

    def _collate(self, samples: list[tuple[int, int, Any]]) -> RawBatch:
        with restored():
            seed_sample(self.seed, samples[0][0], samples[0][1])
            batch = self.collate([item for _, _, item in samples])
        epochs, indices = (torch.tensor([sample[column] for sample in samples]) for column in (0, 1))
        return batch, epochs, indices

    def _next(self) -> tuple[int, int, Any]:
        """(epoch, place in the epoch, sample)"""
        while True:
            if self._iterator is None:
                seed_sample(self.seed, self._epoch, key(0))
                if hasattr(self.dataset, "set_epoch"):
                    self.dataset.set_epoch(self._epoch)
                self._iterator = iter(self.dataset)
            for item in self._iterator:
                self._place, self._read = self._place + 1, self._read + 1
                return self._epoch, self._place - 1, item
            if not self._place:
                raise ConfigError(Problem("data", "the stream gave no samples", "check data.args"))
            self._epoch, self._place, self._iterator = self._epoch + 1, 0, None

    def _restart(self) -> None:
        self._epoch = self._place = self._read = 0
        self._iterator = self._state = None
