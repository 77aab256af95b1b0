"""Which sample comes when: a pure function of the seed, the step and the rank."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from accel_cli.errors import ConfigError, Problem


def key(*numbers: int) -> int:
    """A 64-bit hash of whole numbers, for seeding: nearby numbers give unrelated seeds."""
    text = ",".join(map(str, numbers)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Order:
    """Epoch e is a permutation of (seed, e); epochs are concatenated; global batch k is positions [kB, (k+1)B).

    Rank r takes the contiguous slice r of each global batch, so that the same samples meet in a step whatever the
    world size, and a run resumes from the step alone.
    """

    def __init__(
        self,
        seed: int,
        samples: int | None,
        global_batch: int,
        rank: int = 0,
        world_size: int = 1,
        views: int | None = None,
    ) -> None:
        """``samples`` is None for a stream, which has places in the batch but no order of its own.

        ``views``: the draws of a sample repeat after this many epochs, as what is cached of it does.
        """
        if samples is not None and samples < 1:
            raise ConfigError(Problem("data", "the training split holds no samples", "check data.root"))
        if global_batch % world_size:
            low, high = global_batch // world_size * world_size, -(-global_batch // world_size) * world_size
            why = f"{world_size} ranks cannot share it evenly"
            fix = f"try train.global_batch={high}" + (f" or {low}" if low else "")
            raise ConfigError(Problem(f"train.global_batch={global_batch}", why, fix))
        self.seed = seed
        self.samples = samples
        self.global_batch = global_batch
        self.rank = rank
        self.world_size = world_size
        self.batch = global_batch // world_size
        self.views = views
        # Two: a batch may straddle the border of epochs.
        self._permutation: Any = lru_cache(maxsize=2)(self._draw_permutation)
        self._epochs = lru_cache(maxsize=4)(self._repeat)

    def share(self, step: int) -> tuple[Tensor, Tensor]:
        """(epochs int64 [b], indices int64 [b]) of this rank in global batch ``step``; b = global_batch / world_size.

        Views into shared tensors: not to be written to.
        """
        if self.samples is None:
            raise ValueError("a stream has no order")
        epoch, first = divmod(step * self.global_batch + self.rank * self.batch, self.samples)
        if first + self.batch <= self.samples:
            return self._epochs(epoch, self.batch), self._permutation(epoch)[first : first + self.batch]
        epochs, indices, missing = [], [], self.batch
        while missing:
            count = min(missing, self.samples - first)
            epochs.append(self._epochs(epoch, count))
            indices.append(self._permutation(epoch)[first : first + count])
            epoch, first, missing = epoch + 1, 0, missing - count
        return torch.cat(epochs), torch.cat(indices)

    def _draw_permutation(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(key(self.seed, epoch))
        return torch.randperm(self.samples or 0, generator=generator)

    def _repeat(self, epoch: int, count: int) -> Tensor:
        return torch.full((count,), epoch % self.views if self.views else epoch, dtype=torch.int64)
