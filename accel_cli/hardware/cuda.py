"""NVIDIA GPUs (and AMD under ROCm), one for each rank."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode

from accel_cli.hardware import peaks
from accel_cli.hardware.base import Hardware, read_behind


class CUDA(Hardware):
    """Tried on one NVIDIA H200 with torch 2.11, in one process; on AMD, whose torch answers to the same names, not."""

    activities = (ProfilerActivity.CPU, ProfilerActivity.CUDA)
    is_host = False
    asynchronous = True

    def device(self, local_rank: int) -> torch.device:
        return torch.device("cuda", local_rank)

    def start(self, device: torch.device, determinism: str) -> None:
        if determinism == "exact":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        super().start(device, determinism)
        torch.cuda.set_device(device)
        if self.config.memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(self.config.memory_fraction, device)
        torch.backends.cudnn.benchmark = self.config.cudnn_autotune and determinism != "exact"

    def seed(self, value: int) -> None:
        super().seed(value)
        torch.cuda.manual_seed_all(value)  # a model may lie on several, in one process

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def read_later(self, values: torch.Tensor) -> Callable[[], list[Any]]:
        return read_behind(values, torch.cuda.Event())

    def peak_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated()

    def operation_counter(self) -> FlopCounterMode:
        return FlopCounterMode(display=False)

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        tf32 = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
        return peaks.peak_flops(torch.cuda.get_device_name(), "tf32" if tf32 else str(dtype).removeprefix("torch."))

    def memory_limit(self, processes: int) -> int:
        free, total = torch.cuda.mem_get_info()
        return min(free + torch.cuda.memory_reserved(), total)

    def release_memory(self) -> None:
        torch.cuda.empty_cache()

    def forget_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def memory_taken(self) -> int:
        return torch.cuda.max_memory_allocated()
