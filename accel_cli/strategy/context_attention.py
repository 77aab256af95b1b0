"""Attention over a sequence that ranks hold slices of: an all-to-all gives each some heads of the whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import _functional_collectives as collectives
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from accel_cli.errors import AccelError

ATTENTION = functional.scaled_dot_product_attention
WITHIN = functional.multi_head_attention_forward


class Misfit(AccelError):
    """(why, the most ranks that would do, what to type where a batch was not as the first)"""

    def __init__(self, why: str, most: int, fix: str = "try strategy=fsdp") -> None:
        super().__init__(why, fix)
        self.why, self.most = why, most


class Attention(TorchFunctionMode):
    """Inside, ``attend`` is called in place of torch's scaled_dot_product_attention."""

    def __init__(self, attend: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attend = attend

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is ATTENTION:
            return self.attend(*args, **(kwargs or {}))
        if function is WITHIN:
            # A mode does not see what a function that it has seen calls within.
            with _in_place_of_torchs(self.attend):
                return function(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


@contextmanager
def _in_place_of_torchs(attend: Callable[..., Tensor]) -> Iterator[None]:
    functional.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = ATTENTION


class Exchange:
    """DeepSpeed-Ulysses (Jacobs et al. 2023, arXiv 2309.14509) over the ranks of one group.

    Around attention, tensors [n, heads, slice, width] become [n, heads / ranks, length, width], and back. ``device`` is
    where the group's tensors travel.
    """

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Torch's scaled_dot_product_attention of slices. Raises Misfit where heads or the mask cannot be shared out.

        A dropout mask is a rank's own, of its heads.
        """
        query, key, value, enable_gqa = self.fitting(query, key, value, enable_gqa)
        mask = None if attn_mask is None else self._own_mask(attn_mask, query.shape[-3], query.shape[-2])
        query, key, value = self.to_heads(query, key, value)
        mixed = ATTENTION(query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
        return self._to_slices(mixed)

    def fitting(
        self, query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool
    ) -> tuple[Tensor, Tensor, Tensor, bool]:
        """The same attention with heads that divide: key and value heads too few to share out are repeated."""
        if query.dim() < 4:
            raise Misfit(f"attention has one head, for {self.size} ranks", 1)
        heads, shared = query.shape[-3], key.shape[-3]
        if heads % self.size:
            raise Misfit(f"attention has {heads} heads, for {self.size} ranks", _largest_divisor(heads, self.size))
        if shared % self.size and enable_gqa:
            key, value = (x.repeat_interleave(heads // shared, -3) for x in (key, value))
            enable_gqa = False
        return query, key, value, enable_gqa

    def own_heads(self, whole: Tensor) -> Tensor:
        """This rank's heads of [..., heads, length, width]."""
        return whole.chunk(self.size, -3)[self.rank]

    def to_heads(self, *slices: Tensor) -> list[Tensor]:
        """Each [n, heads, slice, width] -> [n, heads / ranks, length, width]; all in one message."""
        parts = [x.unflatten(-3, (self.size, -1)).movedim(-4, 0) for x in slices]
        received = self._all_to_all(torch.cat([part.reshape(self.size, -1) for part in parts], 1))
        pieces = received.split([part[0].numel() for part in parts], 1)
        return [
            piece.reshape(part.shape).movedim(0, -3).flatten(-3, -2) for piece, part in zip(pieces, parts, strict=True)
        ]

    def _to_slices(self, mixed: Tensor) -> Tensor:
        """[n, heads / ranks, length, width] -> [n, heads, slice, width]"""
        part = mixed.unflatten(-2, (self.size, -1)).movedim(-3, 0)
        return self._all_to_all(part.reshape(self.size, -1)).reshape(part.shape).movedim(0, -4).flatten(-4, -3)

    def _all_to_all(self, rows: Tensor) -> Tensor:
        """[ranks, anything]: row i goes to rank i; differentiable."""
        ones = [1] * self.size
        sent = collectives.all_to_all_single_autograd(rows.to(self.device), ones, ones, self.group)
        return collectives.wait_tensor(sent).to(rows.device)

    def gather(self, own: Tensor, dimension: int) -> Tensor:
        """The ranks' slices of a sequence together; its gradient is the sum over ranks of those of this slice."""
        there = own.to(self.device).contiguous()
        return collectives.all_gather_tensor_autograd(there, dimension, self.group).to(own.device)

    def cut(self, whole: Tensor, dimension: int) -> Tensor:
        """This rank's slice. Raises Misfit where the length does not divide."""
        length = whole.shape[dimension]
        if length % self.size:
            raise Misfit(
                f"a sequence has {length} positions, for {self.size} ranks",
                _largest_divisor(length, self.size),
                f"pad sequences to a multiple of {self.size}",
            )
        return whole.narrow(dimension, self.rank * (length // self.size), length // self.size)

    def _own_mask(self, mask: Tensor, heads: int, own: int) -> Tensor:
        """A mask, broadcast to [n, heads, length, length], for this rank's heads."""
        if mask.dim() > 2 and mask.shape[-3] == heads:
            mask = self.own_heads(mask)
        whole = own * self.size
        if mask.shape[-1] == own and mask.shape[-2] == 1:
            mask = self.gather(mask, mask.dim() - 1)  # of keys: cut with the sequence before it came here
        if mask.shape[-1] not in (1, whole) or mask.shape[-2] not in (1, whole):
            raise Misfit(f"a block makes a mask {list(mask.shape[-2:])} itself: hand it one made before the blocks", 1)
        return mask


def _largest_divisor(number: int, most: int) -> int:
    return next(n for n in range(most, 0, -1) if number % n == 0)
