"""Intel GPUs, one for each rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from accel_cli.hardware.base import Hardware, read_behind


class XPU(Hardware):
    """Not tried on the device: no such machine was at hand. Written to torch.xpu's documentation (2.14)."""

    activities = (ProfilerActivity.CPU, ProfilerActivity.XPU)
    is_host = False
    asynchronous = True

    def device(self, local_rank: int) -> torch.device:
        return torch.device("xpu", local_rank)

    def start(self, device: torch.device, determinism: str) -> None:
        super().start(device, determinism)
        torch.xpu.set_device(device)

    def seed(self, value: int) -> None:
        super().seed(value)
        torch.xpu.manual_seed_all(value)

    def synchronize(self) -> None:
        torch.xpu.synchronize()

    def read_later(self, values: torch.Tensor) -> Callable[[], list[Any]]:
        return read_behind(values, torch.xpu.Event())

    def peak_memory(self) -> int | None:
        return torch.xpu.max_memory_allocated()
