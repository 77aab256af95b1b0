"""Hardware: where tensors live. The base is the processor."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity

from accel_cli.config import preload
from accel_cli.config.machine import memory_available
from accel_cli.hardware import host, layout
from accel_cli.world import ranks_from_environment


class Hardware:
    """The device contract that every hardware option meets; the base is the CPU.

    The engine calls, in this order: ``device`` and ``start``, before anything else of torch; ``seed``; ``arrange`` with
    the whole model on its device; then ``seed`` before every step, ``read_later`` at every record, and the peaks at the
    end. It asks for nothing else that differs between devices.
    """

    activities: tuple[ProfilerActivity, ...] = (ProfilerActivity.CPU,)
    """What a profile can see."""
    sum_dtype = torch.float64
    """The widest type that sums over ranks can have here."""
    is_host = True
    """Whether tensors lie in the host's memory."""
    asynchronous = False
    """Whether reading a number waits for the work that was launched before."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def device(self, local_rank: int) -> torch.device:
        """The device of one rank of this machine. Before ``start``: it may load what knows the device."""
        return torch.device("cpu")

    def start(self, device: torch.device, determinism: str) -> None:
        """Set this process up for the device, before the first tensor.

        ``determinism`` is train.determinism: exact wants only kernels that give the same bits twice.
        """
        _, _, local_rank, local_world_size = ranks_from_environment()
        if self.config.affinity == "cores":
            host.keep_to_share(local_rank, local_world_size)
        if self.config.allocator == "tuned":
            host.tune_malloc()
        preload.forget(self.config.allocator)
        host.set_threads(self.config.threads)
        if determinism == "exact":
            torch.use_deterministic_algorithms(True, warn_only=False)
        self._limit_memory()

    def seed(self, value: int) -> None:
        """Set the generators that dropout and initialisation draw from. Called before every step: it is quick."""
        torch.default_generator.manual_seed(value)

    def arrange(self, model: nn.Module) -> list[str]:
        """Lay a whole model out as the device likes it, in place: shapes, names and values stay.

        Returns lines for the user. What it does follows from the model and the configuration alone, so that a resumed
        run has the same layout.
        """
        lines = layout.arrange(model, getattr(self.config, "memory_format", "contiguous"))
        allocator = self.config.allocator
        if allocator in preload.ALLOCATORS and not preload.is_loaded(allocator):
            why = "ranks that are started by hand need LD_PRELOAD before"
            lines.append(f"hardware.allocator={allocator} is not in use: {why}; accel train --dry-run prints the line")
        return lines

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""

    def read_later(self, values: torch.Tensor) -> Callable[[], list[Any]]:
        """A function that returns the values, nested as ``tolist`` does; to be called once the device had time."""
        return values.tolist

    def peak_memory(self) -> int | None:
        """Most bytes of device memory in use so far; None where the device is the host."""
        return None

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """The device's peak of dense matrix products, operations per second; None where it is not known."""
        return None

    def operation_counter(self) -> Any:
        """A context that has ``get_total_flops`` of what ran in it; asked for only where the peak is known.

        Here and not in the engine: what counts imports triton, which runs on the processor can do without.
        """
        raise NotImplementedError

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


def read_behind(values: torch.Tensor, copied: Any) -> Callable[[], list[Any]]:
    """``read_later`` for a device with streams: the copy is queued behind the work so far, marked by ``copied``, an
    event of the device; the call waits for that much, not for what is launched since."""
    copy = values.to("cpu", non_blocking=True)
    copied.record()

    def read() -> list[Any]:
        copied.synchronize()
        return copy.tolist()

    return read
