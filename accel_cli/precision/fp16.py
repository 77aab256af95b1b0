"""Half-precision autocast over fp32 weights, with dynamic loss scaling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim import Optimizer

from accel_cli.precision.base import Precision, Scaler

SMALLEST_SCALE = 1e-4


class DynamicScaler(Scaler):
    """Multiplies the loss so that small gradients survive fp16; halves at overflow, doubles after a quiet while.

    The arithmetic is torch.amp.GradScaler's (Micikevicius et al. 2018, Mixed Precision Training), but the verdict is
    the gradient norm's: it is the same on ranks that hold different parts of a model, and so stays the scale.
    """

    def __init__(self, device: torch.device, initial_scale: float, growth_interval: int) -> None:
        self.growth_interval = growth_interval
        self.factor = torch.full((), initial_scale, device=device)
        self.quiet = torch.zeros((), dtype=torch.int32, device=device)
        """Steps since the last overflow, or the last growth."""
        self.found_inf = torch.zeros((), device=device)

    def scale(self, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * self.factor

    @torch.no_grad()
    def unscale_(self, optimizer: Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        held = [g.to_local() if hasattr(g, "to_local") else g for g in gradients]
        factor = self.factor.double().reciprocal().float()
        # Weights that are offloaded to the host have their gradients there.
        for device in {gradient.device for gradient in held}:
            torch._foreach_mul_([g for g in held if g.device == device], factor.to(device))

    def step(self, optimizer: Optimizer, norm: torch.Tensor, *, fused: bool) -> torch.Tensor:
        self.found_inf = super().step(optimizer, norm, fused=fused)
        return self.found_inf

    def update(self) -> None:
        torch._amp_update_scale_(self.factor, self.quiet, self.found_inf, 2.0, 0.5, self.growth_interval)

    @property
    def collapsed(self) -> bool:
        return float(self.factor) < SMALLEST_SCALE

    def state(self) -> dict[str, Any]:
        return {"scale": float(self.factor), "quiet": int(self.quiet)}

    def load(self, state: dict[str, Any]) -> None:
        self.factor.fill_(state["scale"])
        self.quiet.fill_(state["quiet"])


def _in_fp32(forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def run(inputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(inputs.float(), *rest)

    return run


class FP16(Precision):
    dtype = torch.float16
    tf32 = True

    def convert(self, model: nn.Module, micro_batch: int) -> list[str]:
        """On a CPU convolutions stay in fp32: torch has no fast half-precision backward for them there.

        The small convolutional net on digits took 726 ms a step with them in fp16, 7 ms in fp32 (torch 2.15).
        """
        convolutions = [module for module in model.modules() if isinstance(module, _ConvNd)]
        if self.device.type != "cpu" or not convolutions:
            return []
        for module in convolutions:
            module.forward = _in_fp32(module.forward)  # type: ignore[method-assign]
        return [f"{len(convolutions)} convolutions stay in fp32: this device trains them far slower in fp16"]

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> Scaler:
        return DynamicScaler(self.device, self.config.initial_scale, self.config.growth_interval)
