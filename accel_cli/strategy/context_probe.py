"""What a model does with a sequence, seen in one forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from accel_cli.strategy.context_attention import ATTENTION, Attention, Exchange

SAMPLES = 2
"""Of the example."""


class Probe:
    """What a forward pass shows: the blocks in their order, what carries the sequence, the first queries and keys."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.attend: Callable[..., Tensor] = self.record
        self.order: list[nn.Module] = []
        self.dimensions: dict[nn.Module, list[int | None]] = {}
        self.length, self.dimension, self.heads = 0, 1, 0
        self.first: list[Tensor] | None = None
        self.compared = self.differs = False

    def inside(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any, **named: Any) -> Any:
            with Attention(self.attend):
                return forward(*inputs, **named)

        return run

    def watch(self, block: nn.Module, inputs: Any, named: Any) -> None:
        """Which dimension of each of a block's arguments is the sequence's. The first tensor is the stream."""
        values = tree_leaves((inputs, named))
        stream = next(index for index, value in enumerate(values) if isinstance(value, Tensor))
        found: list[int | None] = [None] * len(values)
        if not self.order:
            shape = values[stream].shape
            self.dimension = 0 if len(shape) == 3 and shape[0] != SAMPLES and shape[1] == SAMPLES else 1
            self.length = shape[self.dimension]
            found[stream] = self.dimension
        for index, value in enumerate(values):
            if index != stream and isinstance(value, Tensor):
                found[index] = self._carries(value)
        self.order.append(block)
        self.dimensions[block] = found

    def _carries(self, value: Tensor) -> int | None:
        """Attention sees the whole sequence, so its masks [..., length, length] stay whole."""
        shape, length = value.shape, self.length
        if shape[-2:] == (length, length):
            return None
        order = (1, 0, value.dim() - 2)
        return next((n for n in order if 0 <= n < value.dim() and shape[n] == length), None)

    def record(self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Attention over the whole sequence."""
        if self.first is None:
            self.heads = query.shape[-3] if query.dim() > 3 else 1
            query_, key_, *_ = self.exchange.fitting(query, key, value, named.get("enable_gqa", False))
            self.first = [self.exchange.own_heads(x) for x in (query_, key_)]
        return ATTENTION(query, key, value, *rest, **named)

    def compare(self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Attention of slices."""
        if self.first and not self.compared:
            query_, key_, *_ = self.exchange.fitting(query, key, value, named.get("enable_gqa", False))
            self.differs = differs(self.exchange.to_heads(query_, key_), self.first)
            self.compared = True
        return self.exchange.attend(query, key, value, *rest, **named)


def differs(found: Any, wanted: Any) -> bool:
    """Whether any number is not the same to half of its type's digits, of the largest."""
    pairs = zip(tree_leaves(found), tree_leaves(wanted), strict=True)
    return any(_apart(a, b) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point())


def _apart(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape:
        return True
    tolerance = 3 * torch.finfo(found.dtype).eps ** 0.5
    return bool((found - wanted).abs().max() > tolerance * wanted.abs().max())
