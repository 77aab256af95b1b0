"""Magnitude pruning: the smallest weights become zero and stay zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from accel_cli.compression.masked import Masked, local
from accel_cli.config.schema.compression import PruneMagnitude as Config

LARGEST = 0x7FFFFFFF
"""The bits of a magnitude, read as a whole number, are in its order: this is beyond every finite one."""


class PruneMagnitude(Masked):
    """One shot, gradual by the cubic of Zhu and Gupta 2017 (arXiv 1710.01878), or an equal share of what is left at a
    time; with ``rewind`` the lottery ticket of Frankle and Carbin 2019 (arXiv 1803.03635, rewound to a later step as in
    arXiv 1912.05671). The rate's schedule goes on through a rewind, and the optimizer keeps its moments.
    """

    config: Config

    def times(self, steps: int) -> dict[int, float]:
        config = self.config
        if config.schedule == "one_shot":
            return {max(1, round(config.start * steps)): config.sparsity}
        found = {}
        for number in range(1, config.times + 1):
            part = number / config.times
            if config.schedule == "cubic":
                share = config.sparsity * (1 - (1 - part) ** 3)
            else:
                share = 1 - (1 - config.sparsity) ** part
            found[max(1, round((config.start + (config.end - config.start) * part) * steps))] = share
        return found

    def choose(self, weights: Sequence[Tensor], share: float) -> list[Tensor]:
        bits = [local(weight).abs().float().view(torch.int32) for weight in weights]
        sizes = torch.tensor([weight.numel() for weight in weights], dtype=torch.float64)
        if self.config.scope == "global":
            sizes = sizes.sum().expand(len(weights))
        wanted = (sizes * share).round().long().to(bits[0].device, non_blocking=True)
        thresholds = self._thresholds(weights, bits, wanted)
        return [each <= threshold for each, threshold in zip(bits, thresholds, strict=True)]

    def _thresholds(self, weights: Sequence[Tensor], bits: Sequence[Tensor], wanted: Tensor) -> Tensor:
        """The ``wanted``-th smallest magnitude, [weights] of int32, for each by itself or for all: by bisection.

        Counts are whole numbers, so that any layout finds the same; no weight leaves its rank. Equals fall together.
        """
        low, high = torch.full_like(wanted, -1), torch.full_like(wanted, LARGEST)
        for _ in range(32):
            middle = (low + high).div(2, rounding_mode="floor")
            found = self._count(weights, [e <= m for e, m in zip(bits, middle.int(), strict=True)])
            enough = found >= wanted
            high, low = torch.where(enough, middle, high), torch.where(enough, low, middle)
        return torch.where(wanted > 0, high, -1).int()

    def _count(self, weights: Sequence[Tensor], hits: Sequence[Tensor]) -> Tensor:
        """How many there are of each whole tensor, or of all; a collective where they are sharded."""
        counts = torch.stack([hit.sum() for hit in hits])
        mesh = getattr(weights[0], "device_mesh", None)
        for dimension in range(0 if mesh is None else mesh.ndim):
            if not weights[0].placements[dimension].is_replicate():  # type: ignore[attr-defined]
                dist.all_reduce(counts, group=mesh.get_group(dimension))  # type: ignore[union-attr]
        return counts.sum().expand(len(hits)) if self.config.scope == "global" else counts
