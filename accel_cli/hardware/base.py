"""Hardware: where tensors live. The base is the processor."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from typing import Any

import torch


class Hardware:
    """The device contract that every hardware option meets; the base is the CPU."""

    fused_optimizers = True
    asynchronous = False
    """Whether reading a number waits for the work that was launched before."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def device(self, local_rank: int) -> torch.device:
        """The device of one rank of this machine."""
        return torch.device("cpu")

    def start(self, determinism: str) -> None:
        """Set this process up, before the first tensor."""
        torch.set_num_threads(self.config.threads)
        if torch.get_num_interop_threads() != 1:
            torch.set_num_interop_threads(1)
        if determinism == "exact":
            torch.use_deterministic_algorithms(True, warn_only=False)

    def seed(self, value: int) -> None:
        """Set the generators that dropout and initialisation draw from. Called before every step: it is quick."""
        torch.default_generator.manual_seed(value)

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""

    def read_later(self, values: torch.Tensor) -> Callable[[], list[Any]]:
        """A function that returns the values, nested as ``tolist`` does; to be called once the device had time."""
        return values.tolist

    def peak_memory(self) -> int | None:
        """Most bytes of device memory in use so far; None where the device is the host."""
        return None

    @staticmethod
    def peak_host_memory() -> int:
        """Most bytes of host memory that this process has held."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
