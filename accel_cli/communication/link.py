"""The link between ranks, measured: the time of an all-reduce as a latency and a rate."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from accel_cli.world import World

SMALL = 1 << 10
FIRST = 1 << 15
LARGEST = 1 << 24
LONG_ENOUGH = 0.03
"""Seconds in which what buffers and bursts of a shaped link swallow counts little."""
REPEATS = 6


class Link(NamedTuple):
    latency: float
    """Seconds of an all-reduce of next to nothing."""
    rate: float
    """Bytes a second of a tensor that is all-reduced, by as many ranks as were measured."""

    def seconds(self, size: int) -> float:
        """Of the all-reduce of a tensor of this many bytes."""
        return self.latency + size / self.rate


def measure(world: World, most: int) -> Link:
    """All-reduces over ``world`` that grow until one takes 30 ms, or has ``most`` bytes; a collective.

    The same numbers on every rank. It takes some 0.1 s on links from 10 Mbit/s up.
    """
    world.sum(torch.zeros(1, device=world.device))  # the first one connects the ranks
    size, latency = FIRST, _seconds(world, SMALL)
    while (seconds := _seconds(world, size)) < LONG_ENOUGH and size < min(most, LARGEST):
        size = min(4 * size, most, LARGEST)
    return Link(latency, (size - SMALL) / max(seconds - latency, 1e-9))


def _seconds(world: World, size: int) -> float:
    """Of one all-reduce of ``size`` bytes: a mean over ranks, the same on all of them.

    The first is left out: it empties what a shaped link lets pass at once. Of the others the shortest: what else a
    machine does makes them longer.
    """
    values = torch.zeros(size // 4, device=world.device)
    found: list[float] = []
    while len(found) < 2 or (len(found) < REPEATS and sum(found) < LONG_ENOUGH):
        began = time.perf_counter()
        world.sum(values)[0].item()  # reading waits for the device
        passed = torch.tensor(time.perf_counter() - began, device=world.device)
        found.append(float(world.sum(passed)) / world.world_size)
    return min(found[1:])
