"""What a loader worker does as it starts, and how it is ended: it never outlives its rank."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from multiprocessing.process import BaseProcess

import torch

PR_SET_PDEATHSIG = 1


class Start:
    """``worker_init_fn`` of the DataLoader, made in the rank."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, worker: int) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.parent:  # it died before the line above
            os._exit(1)
        # The rank alone decides when to stop: it still needs batches after a Ctrl-C, or a SIGTERM to its whole group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        torch.set_num_threads(1)


def kill(processes: Iterable[BaseProcess]) -> None:
    """End workers that no longer answer; nothing of theirs is worth saving."""
    for process in processes:
        if process.is_alive():
            process.kill()


def describe_death(process: BaseProcess) -> str:
    """``(pid 71) was killed by SIGKILL, as when memory runs out``"""
    code = process.exitcode or 0
    if code >= 0:
        return f"(pid {process.pid}) ended with exit code {code}"
    causes = {signal.SIGKILL: ", as when memory runs out", signal.SIGBUS: ", as when /dev/shm is full"}
    return f"(pid {process.pid}) was killed by {signal.Signals(-code).name}{causes.get(signal.Signals(-code), '')}"
