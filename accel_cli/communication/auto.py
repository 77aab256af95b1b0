"""Choose how gradients travel by what the link and a forward pass take, measured on all ranks at the start."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from accel_cli.communication.base import Communication
from accel_cli.communication.link import Link, measure
from accel_cli.communication.low_rank import columns, compressed_bytes, orthonormal
from accel_cli.config.decide import Decision
from accel_cli.world import World

BACKWARD = 2.0
"""Passes forward that backward counts for: two matrix products for each of forward's (Kaplan et al. 2020, 2.1)."""
NEAR = 1.1
"""An option is near the fastest up to this many times its step."""


class Auto(Communication):
    """Stands in until ``decide`` has named the option; itself it sends nothing differently.

    The step of an option is taken for forward and backward of all micro-batches, and what its all-reduces take beyond
    the last backward, which hides them. Chosen is the mildest (exact, then 16 bits, then powersgd) that is within a
    tenth of the fastest: a link that keeps up leaves the gradients alone. Backward is counted, not run: a trial one
    would move what a model keeps, such as the statistics of normalisation. A model that is compiled later is faster
    than what was measured here.
    """

    def decide(
        self, world: World, parameters: Sequence[Tensor], forward: Callable[[], Any], micro_batches: int, scaled: bool
    ) -> Decision:
        """A collective, with the same answer on every rank.

        ``parameters``: those whose gradients are sent; ``forward``: one pass over one micro-batch, which leaves
        nothing changed; ``scaled``: whether the loss is, so that gradients fit fp16.
        """
        whole = sum(p.numel() * p.element_size() for p in parameters)
        sizes = {
            "exact": whole,
            "fp16" if scaled else "bf16": sum(p.numel() * 2 for p in parameters),
            "powersgd": compressed_bytes(parameters, self.config.rank, self.config.min_compression),
        }
        link = measure(world, whole)
        compress = partial(compress_once, parameters, self.config.rank, self.config.min_compression)
        own = [seconds(work, world.device) for work in (forward, compress)]
        of_all = world.sum(torch.tensor(own, device=world.device)) / world.world_size
        return choose(sizes, link, float(of_all[0]), float(of_all[1]), micro_batches)


def choose(sizes: dict[str, int], link: Link, forward: float, compress: float, micro_batches: int) -> Decision:
    """``sizes``: option -> bytes all-reduced in a step, the mildest first.

    ``forward``: seconds of a pass over one micro-batch; ``compress``: of powersgd's arithmetic in a step.
    """
    compute = (1 + BACKWARD) * forward * micro_batches
    hidden = BACKWARD * forward
    steps = {option: compute + max(0.0, link.seconds(size) - hidden) for option, size in sizes.items()}
    steps["powersgd"] += compress
    chosen = next(option for option, seconds in steps.items() if seconds <= NEAR * min(steps.values()))
    sent = {option: link.seconds(size) for option, size in sizes.items()}
    why = f"{megabytes(sizes['exact'])} of gradients take {1e3 * sent['exact']:.2g} ms at {megabytes(link.rate)}/s"
    why += f", and backward hides {1e3 * hidden:.2g} ms"
    if chosen != "exact":
        why += f"; as {chosen} they take {1e3 * sent[chosen]:.2g} ms"
    measurements = {
        "bytes_per_second": round(link.rate),
        "latency_seconds": round(link.latency, 7),
        "forward_seconds": round(forward, 7),
        "compress_seconds": round(compress, 7),
        "step_seconds": {option: round(seconds, 7) for option, seconds in steps.items()},
    }
    return Decision("communication", chosen, why, measurements)


@torch.no_grad()
def compress_once(parameters: Sequence[Tensor], rank: int, min_compression: float) -> None:
    """The arithmetic of one step of powersgd, on the parameters in the place of their gradients."""
    for parameter in parameters:
        if thin := columns(parameter.shape, rank, min_compression):
            matrix = parameter.flatten(1)
            basis = orthonormal(matrix @ matrix.new_ones(matrix.shape[1], thin))
            matrix - basis @ (matrix.T @ basis).T


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """The shorter of two calls, after one that warms up."""
    found: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        found.append(time.perf_counter() - began)
    return min(found[1:])


def megabytes(size: float) -> str:
    return f"{size / 1e6:.3g} MB"
