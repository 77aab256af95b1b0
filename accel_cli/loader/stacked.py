"""A map-style data set as rows of tensors: whether it can be held so, what that takes, and how it is read into them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from accel_cli.config.machine import memory_available
from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.finish import map_tensors
from accel_cli.loader.read import Collate, Reader, has_batch

PROBED = 16
"""Samples read twice to learn their size, and whether they are the same each time."""
CHUNK = 256
"""Samples joined at once while the set is read, so that it is in memory once, not twice."""
ALIGNED = 4096
"""Bytes: every field of a file begins at a page."""
Report = Callable[[int], None]
"""Called with how many samples have been read."""


class Stacked:
    """An array data set: every tensor of a sample is a row of one tensor [samples, ...]."""

    def __init__(self, rows: Any, samples: int) -> None:
        self.rows = rows
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> Any:
        return map_tensors(lambda tensor: tensor[index], self.rows)

    def batch(self, indices: Tensor) -> Any:
        return map_tensors(lambda tensor: tensor.index_select(0, indices), self.rows)

    @property
    def nbytes(self) -> int:
        return sum(row.nbytes for row in leaves(self.rows))

    def to(self, device: torch.device) -> Stacked:
        return Stacked(map_tensors(lambda tensor: tensor.to(device), self.rows), self.samples)


def probe(dataset: Any, *, seed: int, collate: Collate | None = None) -> tuple[Any, str]:
    """(a sample of meta tensors, "") or (None, why the set cannot be held as rows of tensors).

    Reads the first few samples, twice.
    """
    if collate is not None:
        return None, "the data's own collate joins samples anew for each batch"
    reader, places = Reader(dataset, collate=None, seed=seed), torch.arange(min(PROBED, len(dataset)))
    try:
        found = reader(torch.zeros_like(places), places)
        again = reader(torch.ones_like(places), places)
    except (RuntimeError, TypeError) as error:
        return None, f"the samples do not stack: {_first_line(error)}"
    ones, others = leaves(found), leaves(again)
    if not all(isinstance(one, Tensor) for one in ones):
        return None, "the samples hold more than numbers"
    if len(ones) != len(others) or not all(map(_same, ones, others)):
        return None, "the samples are drawn anew at each read, memory would freeze the draws"
    return map_tensors(lambda tensor: torch.empty_like(tensor[0], device="meta"), found), ""


def measure(dataset: Any, *, collate: Collate | None, seed: int) -> tuple[int | None, str]:
    """(bytes that the set takes as tensors, "") or (None, why it cannot be held so); an array data set is not read."""
    if collate is None and has_batch(dataset):
        return getattr(dataset, "nbytes", 0), ""
    sample, reason = probe(dataset, seed=seed, collate=collate)
    return (None, reason) if sample is None else (size(sample, len(dataset)), "")


def look(dataset: Any, *, collate: Collate | None, seed: int, option: str) -> Any:
    """A sample of meta tensors. Raise ConfigError where samples don't stack, vary by read, or don't fit into memory."""
    sample, reason = probe(dataset, seed=seed, collate=collate)
    if sample is None:
        raise refusal(option, reason)
    needed, available = size(sample, len(dataset)), memory_available()
    if needed > available:
        raise refusal(option, f"the set takes {needed / 1e9:.1f} GB as tensors, {available / 1e9:.1f} GB is free")
    return sample


def stacked(dataset: Any, *, collate: Collate | None, seed: int, option: str) -> Stacked:
    """Read a map-style data set once, into this process's memory. Raises as ``look`` does."""
    sample = look(dataset, collate=collate, seed=seed, option=option)
    buffer = torch.empty(size(sample, len(dataset)), dtype=torch.uint8)
    rows = laid_out(sample, len(dataset), buffer)
    fill(rows, dataset, range(len(dataset)), seed=seed, option=option)
    return Stacked(rows, len(dataset))


def size(sample: Any, samples: int) -> int:
    """Bytes of so many, one field after another."""
    return sum(_padded(samples * field.nbytes) for field in leaves(sample))


def laid_out(sample: Any, samples: int, buffer: Tensor) -> Any:
    """The sample's containers with [samples, ...] for each of its tensors: views of ``buffer``, uint8 [size]."""
    start = 0

    def view(field: Tensor) -> Tensor:
        nonlocal start
        part = buffer[start : start + samples * field.nbytes]
        start += _padded(len(part))
        return part.view(field.dtype).view(samples, *field.shape)

    return map_tensors(view, sample)


def fill(rows: Any, dataset: Any, places: range, *, seed: int, option: str, report: Report = lambda read: None) -> None:
    """Read the samples ``places`` into their rows. Raises ConfigError where one has another shape than the first."""
    reader = Reader(dataset, collate=None, seed=seed)
    for start in range(places.start, places.stop, CHUNK):
        indices = torch.arange(start, min(start + CHUNK, places.stop))
        try:
            chunk = reader(torch.zeros_like(indices), indices)
            for row, part in zip(leaves(rows), leaves(chunk), strict=True):
                if row.shape[1:] != part.shape[1:] or row.dtype != part.dtype:
                    raise TypeError(f"{tuple(part.shape[1:])} after {tuple(row.shape[1:])}")
                row[start : start + len(indices)] = part
        except (RuntimeError, TypeError, ValueError) as error:
            raise refusal(option, f"the samples do not stack: {_first_line(error)}") from error
        report(start + len(indices) - places.start)


def refusal(option: str, why: str, otherwise: str = "workers") -> ConfigError:
    return ConfigError(Problem(f"loader={option}", why, f"try loader={otherwise}"))


def leaves(value: Any) -> list[Any]:
    """Whatever is in the dicts, lists and tuples of ``value``, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def _padded(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
