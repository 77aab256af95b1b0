"""Read samples that lie in chunks, a few neighbouring chunks at a time, in an order that allows it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.order import Order, key
from accel_cli.loader.stream import RawBatch
from accel_cli.loader.workers import Workers


class ChunkOrder(Order):
    """Epoch e puts the chunks in an order drawn from (seed, e), and shuffles samples within each ``block`` of chunks.

    So only the chunks of one block, at a border of two, have to be at hand; every sample still comes once an epoch.
    """

    def __init__(self, order: Order, chunk_sizes: list[int], block: int) -> None:
        super().__init__(
            order.seed, sum(chunk_sizes), order.global_batch, order.rank, order.world_size, views=order.views
        )
        self.chunk_sizes = torch.tensor(chunk_sizes)
        self.starts = self.chunk_sizes.cumsum(0) - self.chunk_sizes
        self.block = block
        self._permutation = lru_cache(maxsize=2)(lambda epoch: Blocks(self, epoch))

    def blocks(self, epoch: int) -> Blocks:
        """The order of an epoch."""
        found: Blocks = self._permutation(epoch)
        return found

    def place(self, step: int) -> tuple[int, int]:
        """(epoch, block) in which a step ends."""
        epoch, position = divmod((step + 1) * self.global_batch - 1, self.samples or 1)
        return epoch, self.blocks(epoch).at(position)


class Blocks:
    """One epoch of a ChunkOrder: slices of it are int64 [n], the samples at these positions."""

    def __init__(self, order: ChunkOrder, epoch: int) -> None:
        self.order = order
        self.epoch = epoch
        generator = torch.Generator().manual_seed(key(order.seed, epoch))
        self.chunks = torch.randperm(len(order.chunk_sizes), generator=generator).split(order.block)
        sizes = torch.stack([order.chunk_sizes[chunks].sum() for chunks in self.chunks])
        self.ends = sizes.cumsum(0)
        self._samples = lru_cache(maxsize=2)(self._draw)

    def at(self, position: int) -> int:
        """The block that a position lies in."""
        return int(torch.searchsorted(self.ends, position, right=True))

    def __getitem__(self, positions: slice) -> Tensor:
        first, last = positions.start, positions.stop
        parts = []
        for block in range(self.at(first), self.at(last - 1) + 1):
            samples = self._samples(block)
            start = int(self.ends[block]) - len(samples)
            parts.append(samples[max(first - start, 0) : last - start])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _draw(self, block: int) -> Tensor:
        chunks = self.chunks[block].tolist()
        starts, sizes = self.order.starts, self.order.chunk_sizes
        samples = torch.cat([torch.arange(int(starts[c]), int(starts[c] + sizes[c])) for c in chunks])
        generator = torch.Generator().manual_seed(key(self.order.seed, self.epoch, block))
        return samples[torch.randperm(len(samples), generator=generator)]


class Chunks(Workers):
    """Worker processes read ahead in a ChunkOrder, while the rank fetches the chunks of the next block."""

    def __init__(self, config: Any, *, dataset: Any, order: Order, **rest: Any) -> None:
        sizes = getattr(dataset, "chunk_sizes", None)
        if sizes is None:
            raise ConfigError(Problem("loader=stream", "this data does not lie in chunks", "try loader=auto"))
        self.chunk_order = ChunkOrder(order, sizes, config.shuffle_chunks)
        _check_room(dataset, config.shuffle_chunks)
        super().__init__(config, dataset=dataset, order=self.chunk_order, **rest)
        self.dataset = dataset
        self.why = f"{len(sizes)} chunks, samples shuffled within {config.shuffle_chunks}"
        self._fetcher: ThreadPoolExecutor | None = None

    def read(self, first_step: int, last_step: int) -> Iterator[list[RawBatch]]:
        entered = None
        for step, batch in enumerate(super().read(first_step, last_step), start=first_step):
            place = self.chunk_order.place(step)
            if place != entered:
                entered = place
                self._fetch_next(*place)
            yield batch

    def close(self) -> None:
        if self._fetcher is not None:
            self._fetcher.shutdown(wait=False, cancel_futures=True)
            self._fetcher = None
        super().close()

    def _fetch_next(self, epoch: int, block: int) -> None:
        """Begun after the workers: a fork of the thread's locks would hold them for good."""
        if self._fetcher is None:
            self._fetcher = ThreadPoolExecutor(1)
        blocks = self.chunk_order.blocks(epoch).chunks
        following = blocks[block + 1] if block + 1 < len(blocks) else self.chunk_order.blocks(epoch + 1).chunks[0]
        # What cannot be fetched is told by the worker that needs it.
        self._fetcher.submit(self.dataset.fetch, following.tolist())


def _check_room(dataset: Any, block: int) -> None:
    """Two blocks are at hand at their border."""
    most = dataset.most_bytes
    needed = sum(sorted(dataset.chunk_bytes)[-2 * block :])
    if most is not None and needed > most:
        why = f"two times loader.shuffle_chunks={block} chunks take up to {needed / 1e9:.2g} GB"
        fix = f"try data.cache_gigabytes={needed / 1e9 * 1.1:.2g}, or a smaller loader.shuffle_chunks"
        raise ConfigError(Problem(f"data.cache_gigabytes={most / 1e9:g}", why, fix))
