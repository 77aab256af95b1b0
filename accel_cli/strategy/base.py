"""Strategy: how the model and its gradients lie over ranks. The base is one process that holds it all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from accel_cli.world import World


class Strategy:
    def __init__(self, config: Any, world: World) -> None:
        self.config = config
        self.world = world
        self._factor: tuple[float, torch.Tensor] | None = None

    def wrap(self, model: nn.Module, communication: Any) -> nn.Module:
        """What forward is called on. Parameters keep their names in the bare model."""
        return model

    def gradient_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Surrounds the forward and backward of one micro-batch; gradients are exchanged at the last only."""
        return nullcontext()

    def forward_backward(self, training: Any, batches: Sequence[Any]) -> tuple[torch.Tensor, float]:
        """Gradients of one global batch; every rank calls this with its share, cut into micro-batches.

        Returns (this rank's sum of the loss, 0-dim, on the device; weight of the global batch). A strategy averages
        gradients over ranks, so every micro-batch's sum is scaled by world_size / weight: ragged, masked and uneven
        batches are right by construction.
        """
        task, model, clock = training.task, training.model, training.clock
        weight = training.weight(batches)
        gradient = training.scaler.scale(self._scalar(self.world.world_size / weight))
        total: torch.Tensor | None = None
        for index, batch in enumerate(batches):
            with self.gradient_sync(model, last=index == len(batches) - 1):
                with training.precision.autocast():
                    loss = task.loss(model, batch)[0].float()
                clock.mark("forward")
                loss.backward(gradient)
                clock.mark("backward")
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total, weight

    def _scalar(self, value: float) -> torch.Tensor:
        """The number on the device, made anew only when it changes."""
        if self._factor is None or self._factor[0] != value:
            self._factor = value, torch.full((), value, device=self.world.device)
        return self._factor[1]

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float | None) -> torch.Tensor:
        """The norm of all gradients, on the device; above ``max_norm`` they are scaled down to it."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return torch.zeros((), device=self.world.device)
        norm = total_norm(gradients)
        if max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        return norm

    def share_buffers(self, model: nn.Module) -> None:
        """Give all ranks the buffers that are saved, such as BatchNorm's statistics, before they evaluate together."""

    def exposed_communication(self, model: nn.Module) -> float | None:
        """Seconds of one step in which backward only waited for other ranks; None where it is not known."""
        return 0.0


@torch.no_grad()
def total_norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """The 2-norm of all of them together, 0-dim; torch.nn.utils.get_total_norm for tensors of one device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
