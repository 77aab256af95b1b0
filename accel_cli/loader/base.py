"""The harmless loader: samples read one by one in the rank itself, and finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.finish import Finish
from accel_cli.loader.order import Order
from accel_cli.loader.read import Collate, Reader
from accel_cli.loader.sharing import Sharing
from accel_cli.loader.stream import RawBatch, Stream, is_stream


class Loader:
    """Batches in the order of ``order``; a subclass says how they are read.

    All loaders give bit-identical batches, from whichever step they start.
    """

    why = "read in the rank itself"
    """Why this loader, where ``auto`` chose it."""

    def __init__(
        self,
        config: Any,
        *,
        dataset: Any,
        description: DataDescription,
        order: Order,
        micro_batches: int,
        augment: Any,
        device: torch.device,
        collate: Collate | None,
        seed: int,
        sharing: Sharing | None = None,
    ) -> None:
        if order.batch % micro_batches:
            why = f"{order.world_size} ranks of {micro_batches} micro-batches cannot share it evenly"
            fix = f"try a multiple of {order.world_size * micro_batches}"
            raise ConfigError(Problem(f"train.global_batch={order.global_batch}", why, fix))
        self.config = config
        self.order = order
        self.sharing = sharing or Sharing()
        self.micro_batches = micro_batches
        self.finish = Finish(description, device, augment)
        self.keys = self.finish.keys
        self.stream = Stream(dataset, order=order, collate=collate, seed=seed) if is_stream(dataset) else None
        self.reader = Reader(dataset, collate=collate, seed=seed)

    def batches(self, first_step: int, last_step: int) -> Iterator[list[Any]]:
        """For each of the steps first_step .. last_step - 1 the list of its micro-batches, on the device.

        Nothing is gathered ahead: a device that is asynchronous still works on step k while the host makes and copies
        the batch of step k + 1, since the loop reads a step's numbers after the next one is launched (``read_later``)
        and copies from pinned memory do not wait. On a CPU there is no one to do it meanwhile.
        """
        finish = self.finish
        steps: Iterator[list[RawBatch]]
        if self.stream is not None:
            steps = self.stream.read(first_step, last_step, self.micro_batches)
        else:
            steps = self.read(first_step, last_step)
        for step, raw_batches in enumerate(steps, start=first_step):
            yield [finish(*raw, step) for raw in raw_batches]

    def read(self, first_step: int, last_step: int) -> Iterator[list[RawBatch]]:
        """The same as stored, on the CPU, each with the epochs and indices of its samples."""
        reader, keys, micro_batches = self.reader, self.keys, self.micro_batches
        for step in range(first_step, last_step):
            epochs, indices = self.order.share(step)
            if micro_batches == 1:
                yield [(reader(*keys(epochs, indices)), epochs, indices)]
                continue
            parts = zip(epochs.chunk(micro_batches), indices.chunk(micro_batches), strict=True)
            yield [(reader(*keys(e, i)), e, i) for e, i in parts]

    def watch(self, mark: Callable[[str], object]) -> None:
        """Call ``mark`` with the name of what has just ended, data or copy, wherever the step waits for it."""
        self.finish.mark = mark

    def close(self) -> None:
        """End what reads ahead. Safe to call again."""
