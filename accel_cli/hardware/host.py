"""The process that a rank is: its threads, its cores, and who hands out its memory."""

from __future__ import annotations

import ctypes
import os

import torch

from accel_cli.config import cores

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
"""glibc's numbers for mallopt (malloc.h)."""
NEVER = 2**31 - 1
LARGEST = 1 << 30
"""Bytes from which on a tensor gets pages of its own, that go back when it is freed."""
GROWTH = 64 << 20
"""Bytes by which the heap grows at a time."""


def set_threads(count: int) -> None:
    torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:
        torch.set_num_interop_threads(1)


def keep_to_share(local_rank: int, local_world_size: int) -> None:
    """Pin this rank to its own part of the allowed cores; its threads, started later, stay there with it."""
    own = cores.share(cores.allowed(), local_rank, local_world_size)
    if own and local_world_size > 1:
        os.sched_setaffinity(0, own)


def tune_malloc() -> None:
    """Let glibc keep what is freed, and hand it out again.

    Otherwise a freed tensor of more than 32 MB at most goes back to the kernel, which clears every page of the next
    one: the activations of a step are faulted in anew at each step.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in ((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, GROWTH)):
            libc.mallopt(parameter, value)
