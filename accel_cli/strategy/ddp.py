"""A replica in every rank; gradients are averaged while backward still runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from accel_cli.strategy.base import Strategy


class DDP(Strategy):
    """torch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704)."""

    def wrap(self, model: nn.Module, communication: Any) -> nn.Module:
        if self.world.world_size == 1 or not any(p.requires_grad for p in model.parameters()):
            return model
        device = self.world.device
        wrapped = DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            bucket_cap_mb=self.config.bucket_megabytes,
            static_graph=self.config.static_graph,
            gradient_as_bucket_view=self.config.gradient_as_bucket_view,
            find_unused_parameters=self.config.find_unused_parameters,
        )
        communication.attach(wrapped)
        return wrapped

    def gradient_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()

    def exposed_communication(self, model: nn.Module) -> float | None:
        """From DDP's own sampled timers, in nanoseconds: communication less what backward covered."""
        if not isinstance(model, DistributedDataParallel):
            return 0.0
        data = model._get_ddp_logging_data()
        total, hidden = data.get("avg_backward_comm_time"), data.get("avg_backward_compute_comm_overlap_time")
        return None if total is None or hidden is None else max(0.0, (total - hidden) / 1e9)
