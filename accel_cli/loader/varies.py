"""Whether a data set draws at random, so that a sample is not the same at each read."""

from __future__ import annotations

from typing import Any

import numpy
import torch
from torch import Tensor

from accel_cli.loader.randomness import get_state, restored, seed_sample
from accel_cli.loader.read import Collate, Reader, has_batch
from accel_cli.loader.stacked import PROBED


def varies(dataset: Any, *, collate: Collate | None, seed: int) -> str:
    """Why it does; empty where the first few samples, read twice, show nothing of the kind.

    Looks at the generators of random, numpy and torch, and at what the samples hold.
    """
    if collate is None and has_batch(dataset):
        return ""
    reader = Reader(dataset, collate=collate, seed=None)
    places = list(range(min(PROBED, len(dataset))))
    found: Any = None
    first: Any = None
    with restored():
        for epoch in (0, 1):
            seed_sample(seed, epoch, 0)
            before = get_state()
            items = reader.items([epoch] * len(places), places)
            batch = reader.collate(items)
            if not _same(before, get_state()):
                return "the samples are drawn at random"
            found, first = [items, batch], found if epoch else None
    return "" if _same(first, found) else "the samples are drawn anew at each read"


def _same(one: Any, other: Any) -> bool:
    """Equal as far as it can be told: what knows no equality counts as equal."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)))
    if isinstance(one, numpy.ndarray):
        return numpy.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, (int, float, str, bytes, bool)):
        return one == other or one != one
    return True
