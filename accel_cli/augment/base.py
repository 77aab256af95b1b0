"""Random draws that belong to a sample, and the transforms that use them one after another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from accel_cli.description import DataDescription

Numbers = NDArray[numpy.uint64]


class Draws:
    """Uniform numbers for a batch of samples, each a function of (seed, epoch, index, name) alone.

    Counter-based: no generator is advanced, so that the same sample gets the same draws in any batch, rank,
    order, device, or after a resume. The hash is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast
    splittable pseudorandom number generators, OOPSLA 2014). numpy has unsigned integers that wrap, and costs a
    small batch a third of what torch would.
    """

    def __init__(self, seed: int, epochs: Tensor, indices: Tensor) -> None:
        """``epochs`` and ``indices``: int64 [n]."""
        epoch, index = epochs.cpu().numpy().view(numpy.uint64), indices.cpu().numpy().view(numpy.uint64)
        self._base = _mix(_mix(epoch + _key("seed", seed)) + index)

    def uniform(self, name: str) -> Tensor:
        """float32 [n] on the CPU, in [0, 1) by steps of 2**-24. Name it after the option: ``basic.flip``."""
        top = _mix(self._base + _key("name", name)) >> _BITS[40]
        return torch.from_numpy(top.astype(numpy.float32) * numpy.float32(2.0**-24))


class Transform:
    """The harmless transform: inputs as they are."""

    def __init__(self, config: Any, description: DataDescription) -> None:
        self.config = config
        self.description = description

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        """float [n, channels, height, width] to the same shape; ``images`` itself stays unchanged."""
        return images


class Pipeline:
    """The chosen transforms in order; the loader calls it on every training batch."""

    def __init__(self, transforms: Sequence[Transform], seed: int) -> None:
        self.transforms = tuple(transforms)
        self.seed = seed

    def keys(self, epochs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(epochs, indices) of all samples to read for a batch of these, int64 [n]: its own first."""
        return epochs, indices

    def __call__(self, inputs: Tensor, targets: Any, epochs: Tensor, indices: Tensor, step: int) -> tuple[Tensor, Any]:
        """(inputs, targets) of the samples that are named, int64 [n], from what was read for ``keys``."""
        if not self.transforms:
            return inputs, targets
        draws = Draws(self.seed, epochs, indices)
        for transform in self.transforms:
            inputs = transform(inputs, draws)
        return inputs, targets


@cache
def _key(kind: str, value: int | str) -> numpy.uint64:
    digest = hashlib.blake2b(f"{kind}={value}".encode(), digest_size=8).digest()
    return numpy.uint64(int.from_bytes(digest, "little"))


_BITS = {bits: numpy.uint64(bits) for bits in (27, 30, 31, 40)}
_STEP = numpy.uint64(0x9E3779B97F4A7C15)
_FIRST = numpy.uint64(0xBF58476D1CE4E5B9)
_SECOND = numpy.uint64(0x94D049BB133111EB)


def _mix(x: Numbers) -> Numbers:
    """uint64 [n] to uint64 [n], every input bit reaching every output bit."""
    x = x + _STEP
    x = (x ^ (x >> _BITS[30])) * _FIRST
    x = (x ^ (x >> _BITS[27])) * _SECOND
    return x ^ (x >> _BITS[31])
