"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """average <- decay x average + (1 - decay) x weights, after every step (Polyak and Juditsky 1992).

    Buffers are copied, not averaged. ``decay`` None: no average, and evaluation reads the weights themselves.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self.model = model
        self.decay = decay
        self.tensors: dict[str, torch.Tensor] = {}
        if decay is not None:
            self.tensors = {name: value.detach().clone() for name, value in model.state_dict().items()}
            weights = dict(model.named_parameters())
            self._averaged = [(self.tensors[n], p) for n, p in weights.items() if n in self.tensors and p.requires_grad]
            self._copied = [(self.tensors[n], b) for n, b in model.state_dict(keep_vars=True).items()
                            if n not in weights or not weights[n].requires_grad]  # fmt: skip

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        assert self.decay is not None
        torch._foreach_lerp_([a for a, _ in self._averaged], [p.detach() for _, p in self._averaged], 1 - self.decay)
        for average, buffer in self._copied:
            average.copy_(buffer)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside: for evaluation, and for the weights that are handed on."""
        if self.decay is None:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.model.state_dict(keep_vars=True).items():
            held = value.detach().clone()
            value.data.copy_(self.tensors[name])
            self.tensors[name].copy_(held)

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, value in self.tensors.items():
            value.copy_(tensors[name])
