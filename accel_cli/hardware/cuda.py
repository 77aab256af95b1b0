"""NVIDIA GPUs (and AMD under ROCm), one for each rank."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from accel_cli.hardware.base import Hardware


class CUDA(Hardware):
    asynchronous = True

    def device(self, local_rank: int) -> torch.device:
        return torch.device("cuda", local_rank)

    def start(self, determinism: str) -> None:
        if determinism == "exact":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        super().start(determinism)
        torch.backends.cudnn.benchmark = determinism != "exact"

    def seed(self, value: int) -> None:
        super().seed(value)
        torch.cuda.manual_seed_all(value)  # a model may lie on several, in one process

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def read_later(self, values: torch.Tensor) -> Callable[[], list[Any]]:
        """The copy is queued behind the work so far; the call waits for that much, not for what is launched since."""
        copy = values.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def read() -> list[Any]:
            copied.synchronize()
            return copy.tolist()

        return read

    def peak_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated()

    def memory_limit(self, processes: int) -> int:
        free, total = torch.cuda.mem_get_info()
        return min(free + torch.cuda.memory_reserved(), total)

    def release_memory(self) -> None:
        torch.cuda.empty_cache()

    def forget_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def memory_taken(self) -> int:
        return torch.cuda.max_memory_allocated()
