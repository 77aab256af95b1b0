"""What a step would wait for other ranks with fewer bytes on the link."""

from __future__ import annotations

from functools import partial
from typing import Any

from accel_cli.communication.auto import compress_once
from accel_cli.communication.auto import seconds as call_seconds
from accel_cli.communication.link import measure
from accel_cli.communication.low_rank import compressed_bytes
from accel_cli.engine.costs import Spent
from accel_cli.engine.training import Training

LINK_BOUND = 0.5
"""The share of the waiting that the link has to explain: else ranks wait for each other's work."""


def asks(t: Training, spent: Spent) -> bool:
    """Whether gradients travel as they are, and steps wait for them."""
    several = t.strategy.gradient.world_size > 1 and t.run.strategy.option == "ddp"
    return several and t.run.communication.option == "exact" and spent.stands_out("communication")


def rows(t: Training, spent: Spent) -> list[dict[str, Any]]:
    """A collective: an all-reduce is timed as a latency and a rate, and what is not sent is not waited for."""
    options = {name: t.run.with_option("communication", name).communication for name in ("bf16", "powersgd")}
    thin = options["powersgd"]
    whole = sum(p.numel() * p.element_size() for p in t.parameters)
    half = "fp16" if t.run.precision.option == "fp16" else "bf16"  # fp16 where the loss is scaled
    sizes = {
        half: sum(p.numel() * 2 for p in t.parameters),
        "powersgd": compressed_bytes(t.parameters, thin.rank, thin.min_compression),
    }
    link = measure(t.strategy.gradient, whole)
    compress = call_seconds(partial(compress_once, t.parameters, thin.rank, thin.min_compression), t.world.device)
    waits = spent.parts["communication"]
    if link.seconds(whole) < LINK_BOUND * waits:
        return []
    found = []
    for option, size in sizes.items():
        other = max(0.0, waits - (link.seconds(whole) - link.seconds(size))) + compress * (option == "powersgd")
        found.append({"part": "communication", "override": f"communication={option}", "own": waits, "other": other,
                      "bytes": whole, "other_bytes": size, "rate": link.rate})  # fmt: skip
    return found
