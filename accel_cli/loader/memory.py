"""Serve batches from memory: a gather for each, whatever the samples cost to read once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.config.machine import memory_available
from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.base import Loader
from accel_cli.loader.finish import map_tensors
from accel_cli.loader.read import Collate, Reader, has_batch

PROBED = 16
"""Samples read twice to learn their size, and whether they are the same each time."""
CHUNK = 256
"""Samples stacked at once while the set is read, so that it is in memory once, not twice."""


class Memory(Loader):
    """Array data sets are gathered as they are, memory-mapped ones from their pages; others are read once, stacked."""

    why = "in memory"

    def __init__(self, config: Any, *, dataset: Any, collate: Collate | None, seed: int, **rest: Any) -> None:
        super().__init__(config, dataset=dataset, collate=collate, seed=seed, **rest)
        if self.stream is None and not self.reader.is_array:
            self.reader = Reader(stacked(dataset, collate=collate, seed=seed), collate=None, seed=seed)


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


def measure(dataset: Any, *, collate: Collate | None, seed: int) -> tuple[int | None, str]:
    """(bytes that the set would take as tensors, "") or (None, why it cannot be held so).

    Reads the first few samples, twice. An array data set, which is never read whole, counts 0.
    """
    if collate is None and has_batch(dataset):
        return 0, ""
    if collate is not None:
        return None, "the data's own collate joins samples anew for each batch"
    count = min(PROBED, len(dataset))
    reader, places = Reader(dataset, collate=None, seed=seed), torch.arange(count)
    try:
        probe = reader(torch.zeros_like(places), places)
        again = reader(torch.ones_like(places), places)
    except (RuntimeError, TypeError) as error:
        return None, f"the samples do not stack: {_first_line(error)}"
    leaves, others = _leaves(probe), _leaves(again)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        return None, "the samples hold more than numbers"
    if len(leaves) != len(others) or not all(map(_same, leaves, others)):
        return None, "the samples are drawn anew at each read, memory would freeze the draws"
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves) * len(dataset) // count, ""


def stacked(dataset: Any, *, collate: Collate | None, seed: int) -> Stacked:
    """Read a map-style data set once. Raise ConfigError where its samples don't stack, vary by read, or don't fit."""
    size, reason = measure(dataset, collate=collate, seed=seed)
    if size is None:
        raise _refusal(reason)
    available = memory_available()
    if size > available:
        raise _refusal(f"the set takes {size / 1e9:.1f} GB, {available / 1e9:.1f} GB is free")
    reader, samples = Reader(dataset, collate=None, seed=seed), len(dataset)
    rows: Any = None
    for start in range(0, samples, CHUNK):
        indices = torch.arange(start, min(start + CHUNK, samples))
        try:
            chunk = reader(torch.zeros_like(indices), indices)
            rows = map_tensors(lambda t: t.new_empty(samples, *t.shape[1:]), chunk) if rows is None else rows
            for row, part in zip(_leaves(rows), _leaves(chunk), strict=True):
                if row.shape[1:] != part.shape[1:] or row.dtype != part.dtype:
                    raise TypeError(f"{tuple(part.shape[1:])} after {tuple(row.shape[1:])}")
                row[start : start + len(indices)] = part
        except (RuntimeError, TypeError, ValueError) as error:
            raise _refusal(f"the samples do not stack: {_first_line(error)}") from error
    return Stacked(rows, samples)


def _refusal(why: str) -> ConfigError:
    return ConfigError(Problem("loader=memory", why, "try loader=workers"))


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:100]
