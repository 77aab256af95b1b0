"""Batches to evaluate on: every sample once over all ranks, as many forwards on each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import default_collate

from accel_cli.description import DataDescription
from accel_cli.loader.finish import Finish
from accel_cli.loader.randomness import get_state, restored, seed_sample, set_state
from accel_cli.loader.read import Collate, Reader
from accel_cli.loader.stream import RawBatch, is_stream


def evaluation_batches(
    dataset: Any,
    *,
    description: DataDescription,
    batch_size: int,
    rank: int,
    world_size: int,
    device: torch.device,
    collate: Collate | None,
) -> Iterator[tuple[Any, int]]:
    """(batch on the device, how many of its samples count), in the stored order, never augmented.

    Rank r takes batch j where j % world_size == r. A rank that has run out gets one sample, repeated, which counts 0,
    so that collective forwards stay in step. Draws of the data set itself are the same each time.
    """
    finish = Finish(description, device)
    read = _stream_batches if is_stream(dataset) else _indexed_batches
    for (batch, epochs, indices), valid in read(dataset, batch_size, rank, world_size, collate):
        yield finish(batch, epochs, indices), valid


def _indexed_batches(
    dataset: Any, batch_size: int, rank: int, world_size: int, collate: Collate | None
) -> Iterator[tuple[RawBatch, int]]:
    reader, samples = Reader(dataset, collate=collate, seed=0), len(dataset)
    for start in range(0, samples, batch_size * world_size):
        first = start + rank * batch_size
        indices = torch.arange(first, min(first + batch_size, samples)) if first < samples else None
        valid = 0 if indices is None else len(indices)
        if indices is None:
            indices = torch.zeros(min(batch_size, samples), dtype=torch.int64)
        epochs = torch.zeros_like(indices)
        yield (reader(epochs, indices), epochs, indices), valid


def _stream_batches(
    dataset: Any, batch_size: int, rank: int, world_size: int, collate: Collate | None
) -> Iterator[tuple[RawBatch, int]]:
    """Every rank reads all of the stream, so that all see its end in the same round of ``world_size`` batches."""
    collate = collate or default_collate
    iterator, state, first_sample = None, None, None
    while True:
        with restored():
            if iterator is None:
                seed_sample(0, 0, 0)
                iterator = iter(dataset)
            elif state is not None:
                set_state(state)
            own, read = [], 0
            for sample in iterator:
                first_sample = sample if first_sample is None else first_sample
                if read // batch_size == rank:
                    own.append(sample)
                read += 1
                if read == batch_size * world_size:
                    break
            state = get_state()
            if not read:
                return
            indices = torch.zeros(len(own) or batch_size, dtype=torch.int64)
            batch = collate(own or [first_sample] * batch_size)
        yield (batch, indices, indices), len(own)
