"""Running statistics, such as BatchNorm's, that a batch of nan shall not spoil."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from accel_cli.optimizer.own import local


class Statistics:
    """A copy of a model's floating-point buffers as they were when all was well.

    A forward pass writes what it saw into them before anyone has looked at the gradients, so that skipping the update
    keeps the weights, not the statistics: evaluation would be nan from then on.
    """

    def __init__(self, model: nn.Module) -> None:
        self._live = [local(buffer) for buffer in model.buffers() if buffer.is_floating_point()]
        self._good = [buffer.clone() for buffer in self._live]

    @torch.no_grad()
    def settle(self, *, skipped: bool) -> int:
        """After a window of steps: keep the buffers or, where a skipped step has spoiled some, put those back.

        Only a window with a skipped step costs a look. Returns how many were put back.
        """
        if not self._live:
            return 0
        if not skipped:
            torch._foreach_copy_(self._good, self._live)
            return 0
        spoiled = [pair for pair in zip(self._live, self._good, strict=True) if not _finite(pair[0])]
        for live, good in spoiled:
            live.copy_(good)
        return len(spoiled)


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
