"""Precision: the numbers used in forward and backward. The base is fp32: nothing is cast, nothing is scaled."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class Scaler:
    """Takes the optimizer's step unless the gradients hold a number that is none. The base scales nothing.

    One path serves every precision: a non-finite gradient norm skips the update on every rank, because the norm is
    taken over gradients that the ranks have already averaged.
    """

    def scale(self, gradient: torch.Tensor) -> torch.Tensor:
        """What backward begins with, times the loss scale."""
        return gradient

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients by the scale, before they are clipped."""

    def step(self, optimizer: Optimizer, norm: torch.Tensor, *, fused: bool) -> torch.Tensor:
        """Update the weights if ``norm`` is finite. Returns 1.0 where the update was skipped, else 0.0, on the device.

        A fused optimizer reads the verdict on the device (``found_inf``); any other costs one host synchronisation,
        which costs nothing where the device is the host.
        """
        if fused:
            found_inf = (norm.float() * 0.0).nan_to_num_(nan=1.0)  # finite x 0 is 0, anything else is nan
            optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            optimizer.step()
            return found_inf
        is_finite = math.isfinite(norm)
        if is_finite:
            optimizer.step()
        return norm.new_full((), float(not is_finite), dtype=torch.float32)

    def update(self) -> None:
        """Grow or shrink the scale."""

    @property
    def collapsed(self) -> bool:
        """Whether the scale fell so low that no update can come of it."""
        return False

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


class Precision:
    """``dtype`` is what products are computed in; ``tf32``: whether those of fp32 numbers may be TF32 on a GPU."""

    dtype = torch.float32
    tf32 = False

    def __init__(self, config: Any, device: torch.device) -> None:
        self.config = config
        self.device = device

    def start(self) -> None:
        """Set torch's own switches, which are the process's: fp32 is fp32 unless a run has asked for less."""
        rounds = self.tf32 and self.device.type == "cuda"
        torch.set_float32_matmul_precision("high" if rounds else "highest")
        torch.backends.cudnn.allow_tf32 = rounds

    def convert(self, model: nn.Module, micro_batch: int) -> list[str]:
        """Change what a forward pass computes in, in place; returns lines for the user.

        ``micro_batch`` is the number of samples that pass through it together. Raises ConfigError where nothing in
        the model can be computed so.
        """
        return []

    def placing(self) -> AbstractContextManager[Any]:
        """Surrounds the forward passes by which a strategy learns the model: in fp32, so that a wrong cut shows."""
        return nullcontext()

    def after_step(self, model: nn.Module) -> tuple[Callable[[int], None], ...]:
        """What has to be called with the step's number after each step, of what this rank holds of the model."""
        return ()

    def autocast(self) -> AbstractContextManager[Any]:
        """Surrounds every forward pass, of training and evaluation."""
        return nullcontext()

    def scaler(self) -> Scaler:
        return Scaler()
