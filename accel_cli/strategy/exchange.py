"""The mean of a flat tensor over ranks: as it is or in int8, at once or in the background."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from accel_cli.world import World

BLOCK = 256
"""Elements that share a scale: its 4 bytes are 1.6 % on top of theirs."""


class Exchange:
    """Takes means over all ranks, and counts the bytes that this one sends for them.

    ``compression`` int8 is a reduce-scatter and an all-gather of 8-bit numbers. What is added is fp32, and every rank
    reads the same bytes of the result: all have the same mean, bit for bit.
    """

    def __init__(self, world: World, compression: str = "none", *, background: bool = False) -> None:
        self.world = world
        self.is_compressed = compression == "int8"
        self.bytes_sent = 0
        self._thread: ThreadPoolExecutor | None = None
        self._group: Any = None
        self._stream: torch.cuda.Stream | None = None
        if background and world.world_size > 1:
            # One thread and a group of its own: its collectives keep their order, and those of the steps pass them by.
            self._thread = ThreadPoolExecutor(1, "outer exchange")
            self._group = dist.new_group()

    def start(self, values: Tensor) -> Future[Tensor]:
        """Begin to take the mean of a 1-d tensor, which is the exchange's from now on. A collective.

        Without a background the mean is there at once.
        """
        self.bytes_sent += self._int8_bytes(values) if self.is_compressed else self._exact_bytes(values)
        if self._thread is None:
            return done(self._mean(values))
        if not values.is_cuda:
            return self._thread.submit(self._mean, values)
        ready = torch.cuda.Event()
        ready.record()
        return self._thread.submit(self._beside, values, ready)

    @torch.no_grad()
    def exact_mean(self, values: Tensor) -> Tensor:
        """The mean at once and never compressed, in place; a collective, beside those that are under way."""
        self.bytes_sent += self._exact_bytes(values)
        return self.world.sum(values.div_(self.world.world_size))

    def _beside(self, values: Tensor, ready: torch.cuda.Event) -> Tensor:
        """On a stream of its own, so that the steps' kernels do not queue behind it."""
        self._stream = self._stream or torch.cuda.Stream(values.device)
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            result = self._mean(values)
        self._stream.synchronize()
        return result

    @torch.no_grad()
    def _mean(self, values: Tensor) -> Tensor:
        if self.world.world_size == 1:
            return values
        if self.is_compressed:
            return self._int8_mean(values)
        dist.all_reduce(values.div_(self.world.world_size), group=self._group)
        return values

    def _int8_mean(self, values: Tensor) -> Tensor:
        ranks, size, share = self.world.world_size, values.numel(), self._share(values)
        padded = torch.zeros(ranks, share, device=values.device)
        padded.view(-1)[:size] = values
        outgoing = pack(padded)
        incoming = torch.empty_like(outgoing)
        dist.all_to_all_single(incoming, outgoing, group=self._group)
        own = pack(unpack(incoming, share).mean(0, keepdim=True))
        dist.all_gather_into_tensor(incoming, own, group=self._group)
        return unpack(incoming, share).view(-1)[:size].to(values.dtype)

    def _share(self, values: Tensor) -> int:
        """Elements that one rank adds up: whole blocks."""
        return -(-values.numel() // (self.world.world_size * BLOCK)) * BLOCK

    def _int8_bytes(self, values: Tensor) -> int:
        share = self._share(values)
        return 2 * (self.world.world_size - 1) * (share + share // BLOCK * 4)

    def _exact_bytes(self, values: Tensor) -> int:
        ranks = self.world.world_size
        return round(2 * (ranks - 1) / ranks * values.numel() * values.element_size())


def done(mean: Tensor) -> Future[Tensor]:
    """An exchange that has ended."""
    future: Future[Tensor] = Future()
    future.set_result(mean)
    return future


def pack(rows: Tensor) -> Tensor:
    """fp32 ``[n, share]`` -> bytes ``[n, share + share / BLOCK x 4]``: numbers in int8, then a scale for each block.

    A block that holds nan or inf comes out as nan.
    """
    blocks = rows.view(len(rows), -1, BLOCK)
    scales = blocks.abs().amax(2) / 127
    steps = torch.where(scales == 0, 1.0, scales)
    numbers = (blocks / steps.unsqueeze(2)).round_().to(torch.int8)
    return torch.cat([numbers.view(torch.uint8).flatten(1), scales.view(torch.uint8)], 1)


def unpack(rows: Tensor, share: int) -> Tensor:
    """The inverse of ``pack``, to half of a 127th of each block's largest."""
    numbers = rows[:, :share].contiguous().view(torch.int8).view(len(rows), -1, BLOCK)
    scales = rows[:, share:].contiguous().view(torch.float32)
    return (numbers * scales.unsqueeze(2)).flatten(1)
