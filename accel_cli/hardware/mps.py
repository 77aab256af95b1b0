"""The GPU of an Apple computer."""

from __future__ import annotations

import torch

from accel_cli.hardware.base import Hardware


class MPS(Hardware):
    """Not tried on the device: no such machine was at hand."""

    is_host = False
    sum_dtype = torch.float32  # there is no other

    def device(self, local_rank: int) -> torch.device:
        return torch.device("mps")

    def seed(self, value: int) -> None:
        super().seed(value)
        torch.mps.manual_seed(value)

    def synchronize(self) -> None:
        torch.mps.synchronize()

    def peak_memory(self) -> int | None:
        return torch.mps.driver_allocated_memory()
