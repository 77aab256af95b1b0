"""A replica in every rank; gradients are averaged while backward still runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from accel_cli.errors import AccelError
from accel_cli.strategy.base import Strategy


class DDP(Strategy):
    """torch's DistributedDataParallel (Li et al. 2020, arXiv 2006.15704)."""

    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
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

    def forward_backward(self, training: Any, batches: Sequence[Any]) -> tuple[torch.Tensor, float]:
        try:
            return super().forward_backward(training, batches)
        except RuntimeError as error:
            if "Expected to have finished reduction" not in str(error):
                raise
            raise AccelError(
                "a parameter took no part in the last loss, and its gradient was waited for",
                "try strategy.find_unused_parameters=true, or freeze what is not used",
            ) from error

    def share_buffers(self, model: nn.Module) -> None:
        """Rank 0's, which are saved: in training each rank's own follow its share of the batch."""
        if self.world.world_size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def exposed_communication(self, model: nn.Module) -> float | None:
        """From DDP's own sampled timers, in nanoseconds: communication less what backward covered."""
        if not isinstance(model, DistributedDataParallel):
            return 0.0
        data = model._get_ddp_logging_data()
        total, hidden = data.get("avg_backward_comm_time"), data.get("avg_backward_compute_comm_overlap_time")
        return None if total is None or hidden is None else max(0.0, (total - hidden) / 1e9)
