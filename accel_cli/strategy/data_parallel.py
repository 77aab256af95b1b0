"""Gradients averaged over ranks: replicas under DDP, or shards under FSDP2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

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
        bucket_cap_mb=config.bucket_megabytes,
        static_graph=config.static_graph,
        gradient_as_bucket_view=config.gradient_as_bucket_view,
        find_unused_parameters=config.find_unused_parameters,
    )
    communication.attach(wrapped)
    return wrapped


def exposed_communication(model: nn.Module) -> float | None:
    """Seconds of a step in which backward only waited, from DDP's own sampled timers in nanoseconds."""
    if not isinstance(model, DistributedDataParallel):
        return 0.0
    data = model._get_ddp_logging_data()
    total, hidden = data.get("avg_backward_comm_time"), data.get("avg_backward_compute_comm_overlap_time")
    return None if total is None or hidden is None else max(0.0, (total - hidden) / 1e9)


def share_buffers(buffers: Iterable[Tensor], world: World) -> None:
    """Rank 0's, which are saved: in training each rank's own follow its share of the batch."""
    for buffer in buffers:
        world.share(buffer)
