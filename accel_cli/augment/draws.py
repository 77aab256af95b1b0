"""Random draws that belong to a sample: a hash of its seed, epoch and index, and of the draw's name."""

from __future__ import annotations

import hashlib
from copy import copy
from functools import cache
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[numpy.uint64]
Floats = NDArray[numpy.float32]


class Draws:
    """Uniform numbers for a batch of samples, each a function of (seed, epoch, index, name) alone.

    Counter-based: no generator is advanced, so that the same sample gets the same draws in any batch, rank,
    order, device, or after a resume. The hash is the finaliser of SplitMix64 (Steele, Lea, Flood: Fast
    splittable pseudorandom number generators, OOPSLA 2014). numpy has unsigned integers that wrap, and costs a
    small batch a third of what torch would.
    """

    def __init__(self, seed: int, epochs: Tensor, indices: Tensor, names: tuple[str, ...] = ()) -> None:
        """``epochs`` and ``indices``: int64 [n]. ``names`` are drawn together: a call for each would cost more."""
        self.epochs: NDArray[Any] = epochs.cpu().numpy()
        self._index = indices.cpu().numpy().view(numpy.uint64)
        self._seed = _keys((seed,), "seed")[0]
        self._base = _mix(_mix(self.epochs.view(numpy.uint64) + self._seed) + self._index)
        self._drawn = dict(zip(names, _uniform(self._base + _keys(names)), strict=True)) if names else {}

    def numbers(self, name: str) -> Floats:
        """float32 [n], in [0, 1) by steps of 2**-24. Name it after the option: ``crop.down``."""
        if name not in self._drawn:
            self._drawn[name] = _uniform(self._base + _key("name", name))
        return self._drawn[name]

    def uniform(self, name: str) -> Tensor:
        """The same as a tensor on the CPU."""
        return torch.from_numpy(self.numbers(name))

    def lasting(self, name: str) -> Floats:
        """The same for a sample in every epoch: a function of (seed, index, name)."""
        return _uniform(_mix(_mix(self._seed) + self._index) + _key("name", name))

    def first(self, count: int) -> Draws:
        """Those of the first samples alone."""
        part = copy(self)
        part.epochs, part._index, part._base = self.epochs[:count], self._index[:count], self._base[:count]
        part._drawn = {name: drawn[:count] for name, drawn in self._drawn.items()}
        return part


def sent(numbers: Tensor | NDArray[Any], device: torch.device) -> Tensor:
    """On the device; to a GPU from pinned memory, so that the host goes on at once."""
    tensor = torch.as_tensor(numbers)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _uniform(hashed: Numbers) -> Floats:
    return (_mix(hashed) >> _BITS[40]).astype(numpy.float32) * _GRAIN


@cache
def _keys(names: tuple[int | str, ...], kind: str = "name") -> Numbers:
    """[names, 1]"""
    return numpy.array([_key(kind, name) for name in names])[:, None]


@cache
def _key(kind: str, value: int | str) -> numpy.uint64:
    digest = hashlib.blake2b(f"{kind}={value}".encode(), digest_size=8).digest()
    return numpy.uint64(int.from_bytes(digest, "little"))


_GRAIN = numpy.float32(2.0**-24)
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
