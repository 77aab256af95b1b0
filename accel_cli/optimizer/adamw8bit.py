"""AdamW whose two moments take a byte a weight each."""

from __future__ import annotations

from typing import Any

import torch
import torchao.optim
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torchao.optim.subclass_8bit import OptimState8bit

from accel_cli.optimizer.base import with_rates

MOMENTS = {"exp_avg": True, "exp_avg_sq": False}
"""State entry -> whether its numbers have a sign."""


class AdamW8bit(torchao.optim.AdamW8bit):
    """torchao's, which takes back what a checkpoint keeps of its quantised tensors: their plain parts.

    A learning rate is a tensor, to be filled. Tensors of fewer than 4096 numbers, or not of whole blocks of 256, stay
    in fp32.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for parameter, state in self.state.items():
            if all(f"{name}.codes" in state for name in MOMENTS):
                self._pack(parameter, state)
        with _disable_current_modes():  # torch compiles nothing where a step's traffic is watched
            return super().step(closure)

    def _pack(self, parameter: Tensor, state: dict[str, Any]) -> None:
        for name, signed in MOMENTS.items():
            parts = [state.pop(f"{name}.{part}").contiguous() for part in OptimState8bit.tensor_attrs]
            state[name] = OptimState8bit(*parts, signed, parameter.dtype)


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> AdamW8bit:
    """AdamW with block-wise quantised state (Dettmers et al. 2022, arXiv:2110.02861), by torchao.

    Its update is compiled at the first step, once for every shape.
    """
    return AdamW8bit(
        with_rates(groups, config.learning_rate),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )
