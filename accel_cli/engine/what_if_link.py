"""What a step would wait for other ranks with fewer bytes on the link."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accel_cli.communication.auto import compress_once
from accel_cli.communication.link import measure
from accel_cli.communication.low_rank import compressed_bytes
from accel_cli.engine.costs import Spent
from accel_cli.engine.training import Training
from accel_cli.world import World

LINK_BOUND = 0.5
"""The share of the waiting that the link has to explain: else ranks wait for each other's work."""

TURNS = 6


def asks(t: Training, spent: Spent) -> bool:
    """Whether gradients travel as they are, and steps wait for them."""
    several = t.strategy.gradient.world_size > 1 and t.run.strategy.option == "ddp"
    return several and t.run.communication.option == "exact" and spent.stands_out("communication")


def rows(t: Training, spent: Spent) -> list[dict[str, Any]]:
    """A collective. In 16 bits, what is not sent is not waited for, by the link's own rate; powersgd is played."""
    world, waits = t.strategy.gradient, spent.parts["communication"]
    thin = t.run.with_option("communication", "powersgd").communication
    whole = sum(p.numel() * p.element_size() for p in t.parameters)
    half = sum(p.numel() * 2 for p in t.parameters)
    thinned = compressed_bytes(t.parameters, thin.rank, thin.min_compression)
    link = measure(world, whole)
    played = _powersgd(world, t.parameters, thin, thinned)
    if link.seconds(whole) < LINK_BOUND * waits:
        return []
    option = "fp16" if t.run.precision.option == "fp16" else "bf16"  # fp16 where the loss is scaled
    others = {
        option: (half, max(0.0, waits - (link.seconds(whole) - link.seconds(half)))),
        "powersgd": (thinned, played),
    }
    return [
        {"part": "communication", "override": f"communication={name}", "own": waits, "other": other,
         "bytes": whole, "other_bytes": size, "rate": link.rate}
        for name, (size, other) in others.items()
    ]  # fmt: skip


def _powersgd(world: World, parameters: Sequence[Tensor], config: Any, size: int) -> float:
    """Seconds of its arithmetic and of both its exchanges; backward, which it waits for, hides none of it."""
    sent = torch.zeros(max(1, size // 8), device=world.device)
    found = []
    for _ in range(TURNS):
        began = time.perf_counter()
        compress_once(parameters, config.rank, config.min_compression)
        for _ in range(2):
            world.sum(sent)[0].item()  # reading waits for the device
        found.append(time.perf_counter() - began)
    mean = torch.tensor(statistics.fmean(found[1:]), device=world.device)
    return float(world.sum(mean)) / world.world_size
