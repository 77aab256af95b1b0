"""Hardware: where tensors live. The base is the processor."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from accel_cli.config.machine import memory_available


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
        self._limit_memory()

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

    def _limit_memory(self) -> None:
        """Let an allocation beyond the limit fail, where the kernel would end the process without a word.

        The limit counts from here: torch's own libraries take half a gigabyte before a training has begun.
        """
        self._begin = process_memory()
        gigabytes = getattr(self.config, "memory_gigabytes", None)
        if gigabytes is None:
            return
        most = self._begin["VmData"] + round(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))

    def memory_limit(self, processes: int) -> int:
        """Bytes that a training may take in this process, of ``processes`` that share this machine."""
        gigabytes = getattr(self.config, "memory_gigabytes", None)
        return round(gigabytes * 1e9) if gigabytes is not None else memory_available() // processes

    def release_memory(self) -> None:
        """Give back what was freed, so that what comes next is counted by itself."""
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # glibc's
            trim(0)

    def forget_peak(self) -> None:
        """Let ``memory_taken`` count from now on."""
        Path("/proc/self/clear_refs").write_text("5")

    def memory_taken(self) -> int:
        """Most bytes held since ``forget_peak``, beside what the process held before a training began.

        The limit counts what was asked for, the peak what was touched: stacks of threads, for one, differ.
        """
        now = process_memory()
        untouched = (now["VmData"] - now["VmRSS"]) - (self._begin["VmData"] - self._begin["VmRSS"])
        return now["VmHWM"] - self._begin["VmRSS"] + max(0, untouched)

    @staticmethod
    def peak_host_memory() -> int:
        """Most bytes of host memory that this process has held."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def process_memory() -> dict[str, int]:
    """This process's memory in bytes, by the kernel's names (proc(5)); empty where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value.split()[0]) * 1024 for name, _, value in (x.partition(":") for x in lines) if "kB" in value}
