"""Google TPUs through TorchTPU (https://github.com/google-pytorch/torch_tpu), one chip for each rank."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from accel_cli.hardware.base import Hardware


class TPU(Hardware):
    """Not tried on the device: no such machine was at hand. Written to the names that torch_tpu 0.2 gives torch.tpu.

    The package is imported here and nowhere else: importing it replaces torch.compile's default backend and claims
    the chip for this process. Ranks are forks of a process that has not imported it, which is what lets them fork.
    Reading a number waits for the work before it: torch.tpu's events are not relied on.
    """

    is_host = False
    sum_dtype = torch.float32

    def device(self, local_rank: int) -> torch.device:
        importlib.import_module("torch_tpu")
        return torch.device("tpu", local_rank)

    def start(self, device: torch.device, determinism: str) -> None:
        super().start(device, determinism)
        self._module.set_device(device)

    def seed(self, value: int) -> None:
        super().seed(value)
        self._module.manual_seed_all(value)

    def synchronize(self) -> None:
        self._module.synchronize()

    @property
    def _module(self) -> Any:
        return torch.get_device_module("tpu")
