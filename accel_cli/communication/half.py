"""Gradients that travel as 16-bit numbers: half the bytes of fp32, rounded twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook, fp16_compress_hook

from accel_cli.communication.base import Communication


class Half(Communication):
    """Every rank divides its gradients by the number of ranks before they are added, so that a sum overflows no sooner
    than a gradient does; what overflows becomes inf on every rank, and the step is skipped on all of them.
    """

    dtype: torch.dtype
    hook: Callable[..., Any]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.share = 0.5
        """Of the bytes of the gradients: a half, unless they are 16-bit numbers themselves."""

    def attach(self, model: nn.Module) -> None:
        gradients = [p for p in model.parameters() if p.requires_grad]
        self.share = sum(p.numel() * 2 for p in gradients) / sum(p.numel() * p.element_size() for p in gradients)
        model.register_comm_hook(model.process_group, type(self).hook)  # type: ignore[operator]

    @property
    def reduce_dtype(self) -> torch.dtype:
        return self.dtype

    def bytes_per_step(self, gradient_bytes: int, world_size: int) -> int:
        return round(super().bytes_per_step(gradient_bytes, world_size) * self.share)


class FP16(Half):
    dtype = torch.float16
    hook = staticmethod(fp16_compress_hook)


class BF16(Half):
    dtype = torch.bfloat16
    hook = staticmethod(bf16_compress_hook)
