"""Gradients averaged over replicas: torch's DDP, its buckets and its timers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from accel_cli.world import World


def replicate(model: nn.Module, world: World, config: Any, communication: Any) -> nn.Module:
    """The model under torch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704), over the ranks of ``world``.

    One without anything to train, or in a world of one, is returned as it is.
    """
    if world.world_size == 1 or not any(p.requires_grad for p in model.parameters()):
        return model
    wrapped = DistributedDataParallel(
        model,
        device_ids=[world.device.index] if world.device.type == "cuda" else None,
        process_group=world.group,
        bucket_cap_mb=bucket_megabytes(config, world),
        static_graph=config.static_graph,
        gradient_as_bucket_view=config.gradient_as_bucket_view,
        find_unused_parameters=config.find_unused_parameters,
    )
    communication.attach(wrapped)
    return wrapped


def bucket_megabytes(config: Any, world: World) -> float:
    """What a slow link wants are small buckets: sent while backward runs, where one large one is sent after it.

    Two hosts over 1 Gbit/s, 7.5 MB of gradients: a step is 1.27 times what the link allows in buckets of 1 MB, 1.56
    times in one (gloo, benchmarks/link.py step).
    """
    if config.bucket_megabytes != "auto":
        return float(config.bucket_megabytes)
    between_machines = world.world_size > world.local_world_size
    return 1.0 if between_machines and dist.get_backend(world.group) == "gloo" else 25.0


def waited_seconds(model: nn.Module, clock: Any) -> float:
    """Of all backward passes, beyond what they compute by DDP's own timers, in nanoseconds.

    DDP looks at the first ten steps and at every hundredth, and tells of the mean and of the last one. What backward
    computes is alike in them, but for the very first, which builds: the smaller counts. How long it waits is not, for
    links let a burst pass at once, and powersgd sends its first gradients whole: the larger is the most that a pass may
    have waited, where compiling took the rest.
    """
    if not isinstance(model, DistributedDataParallel):
        return 0.0
    data = model._get_ddp_logging_data()
    if not data.get("avg_backward_compute_time"):
        return 0.0
    computes = min(data[f"{which}backward_compute_time"] for which in ("avg_", "")) / 1e9
    waits = max(
        data[f"{which}backward_comm_time"] - data[f"{which}backward_compute_comm_overlap_time"]
        for which in ("avg_", "")
    )
    passes, seconds = clock.marks["backward"], clock.seconds["backward"]
    return max(0.0, min(seconds - passes * computes, passes * waits / 1e9))


def share_buffers(buffers: Iterable[Tensor], world: World) -> None:
    """Rank 0's, which are saved: in training each rank's own follow its share of the batch."""
    for buffer in buffers:
        world.share(buffer)
