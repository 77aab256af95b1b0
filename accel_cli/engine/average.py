"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
        if decay is None:
            return
        once: dict[int, torch.Tensor] = {}
        for name, value in model.state_dict(keep_vars=True).items():
            self.tensors[name] = once.setdefault(id(value), value.detach().clone())
        self._averages = [average for average, value in self._pairs() if value.requires_grad]
        self._trained = [value for _, value in self._pairs() if value.requires_grad]
        self._copies = len(self._trained) < len(once)

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(average, live tensor), each once: tied weights have several names."""
        live = self.model.state_dict(keep_vars=True)
        yield from {id(value): (self.tensors[name], value) for name, value in live.items()}.values()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        assert self.decay is not None
        torch._foreach_lerp_(self._averages, self._trained, 1 - self.decay)
        if self._copies:
            for average, value in self._pairs():
                if not value.requires_grad:
                    average.copy_(value)

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
        for average, value in self._pairs():
            held = value.detach().clone()
            value.data.copy_(average)
            average.copy_(held)

    @torch.no_grad()
    def load(
        self, tensors: dict[str, torch.Tensor], part: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        """Whole tensors by name, of which ``part`` tells what this rank holds."""
        for name, value in self.tensors.items():
            value.copy_(part(tensors[name], value))
