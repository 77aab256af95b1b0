"""A replica in every rank; gradients are averaged while backward still runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from accel_cli.strategy import averaged
from accel_cli.strategy.base import Strategy


class DDP(Strategy):
    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        return averaged.replicate(model, self.world, self.config, communication)

    def gradient_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()

    def share_buffers(self, model: nn.Module) -> None:
        averaged.share_buffers(model.buffers(), self.world)

    def bytes_sent(self, communication: Any, gradient_bytes: int, steps: int) -> int | None:
        sent: int = communication.bytes_sent(gradient_bytes, self.world.world_size, steps)
        return sent

    def exposed_communication(self, model: nn.Module, clock: Any, seen: float) -> float:
        # powersgd waits inside backward, which DDP's timers take for computing once it has begun to: then it is seen.
        return min(clock.seconds["backward"], max(seen, averaged.waited_seconds(model, clock)))
