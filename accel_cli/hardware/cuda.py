"""NVIDIA GPUs (and AMD under ROCm), one for each rank."""

from __future__ import annotations

import os

import torch

from accel_cli.hardware.base import Hardware


class CUDA(Hardware):
    def device(self, local_rank: int) -> torch.device:
        return torch.device("cuda", local_rank)

    def start(self, determinism: str) -> None:
        if determinism == "exact":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        super().start(determinism)
        torch.set_float32_matmul_precision("high" if self.config.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = self.config.tf32
        torch.backends.cudnn.benchmark = determinism != "exact"

    def seed(self, value: int) -> None:
        super().seed(value)
        torch.cuda.manual_seed(value)

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def peak_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated()
