"""What ``auto`` means for the processes that ranks are: threads, cores, memory and its layout; with the reason."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from accel_cli.config.machine import Machine
from accel_cli.config.run import Run

OWN_MALLOC = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Variables by which a user has settled who hands out memory, and how."""
CONVOLUTIONAL = ("cnn", "resnet")
ENOUGH_IMAGES = 32
"""Of one forward pass: with fewer, large filters are turned about for little work."""


def settled(run: Run, machine: Machine) -> dict[str, tuple[Any, str]]:
    """Key of ``hardware`` -> what auto means, and why. The run's device and processes are settled already."""
    device, processes = run.hardware.option, run.launch.processes
    return {
        "threads": threads(machine, processes),
        "affinity": affinity(machine, processes),
        "allocator": allocator(machine, device, limited=getattr(run.hardware, "memory_gigabytes", None) is not None),
        "memory_format": memory_format(run, device),
    }


def threads(machine: Machine, processes: int) -> tuple[int, str]:
    """Of one process."""
    why = f"{machine.cores} cores / {processes} processes"
    if machine.core_quota is not None and machine.core_quota < machine.core_mask:
        why += f"; the control group grants {machine.core_quota:g} of {machine.core_mask}"
    elif machine.core_mask < machine.all_cores:
        why += f"; the affinity mask allows {machine.core_mask} of {machine.all_cores}"
    return max(1, machine.cores // processes), why


def affinity(machine: Machine, processes: int) -> tuple[str, str]:
    if processes == 1:
        return "none", "one process has all cores"
    if machine.memory_nodes == 1:
        return "none", "all cores are as near to memory: the system may move a process off a busy core"
    if processes > machine.core_mask or machine.cores < machine.core_mask:
        return "none", "there is no whole core for each process"
    return "cores", f"memory has {machine.memory_nodes} nodes: a process stays near its own"


def allocator(
    machine: Machine, device: str, environment: Mapping[str, str] = os.environ, *, limited: bool = False
) -> tuple[str, str]:
    if limited:
        return "system", "hardware.memory_gigabytes counts what is kept too"
    if device != "cpu":
        return "system", f"tensors lie on the {device}"
    if own := next((name for name in OWN_MALLOC if environment.get(name)), ""):
        return "system", f"{own} is set"
    if not machine.glibc:
        return "system", "only glibc's can be tuned"
    return "tuned", "freed tensors are used again, where glibc would return them and fault their pages in anew"


def memory_format(run: Run, device: str) -> tuple[str, str]:
    """Of images and filters.

    On one core with AVX-512 (torch 2.14, fp32) a training step in channels_last goes 1.4 times as fast for the cnn on
    digits, 1.3 on 32x32, 1.2 for the resnet of 18 layers with 32 images, and 0.94 for one of twice the width with 8.
    Of torchvision's on 64x64, resnet50, mobilenet_v3_small and efficientnet_b0 go 1.4 to 1.5 times as fast, but
    resnet18 0.83: auto leaves those alone.
    """
    ranks = run.launch.processes * run.launch.most_nodes
    if device != "cpu":
        return "contiguous", f"what channels_last brings on {device} is not measured"
    sizes, train = run.strategy.sizes(ranks), run.train
    most = train.micro_batch if isinstance(train.micro_batch, int) else train.global_batch
    images = min(most, train.global_batch // run.strategy.data_ranks(ranks))
    in_parts = max(sizes["pipeline"], sizes["shard"]) > 1 or run.strategy.option == "layers"
    if run.model.option not in CONVOLUTIONAL or images < ENOUGH_IMAGES or in_parts:
        return "contiguous", "channels_last pays for none but convolutional nets, many images and whole weights"
    return "channels_last", f"a CPU trains model={run.model.option} faster so from {ENOUGH_IMAGES} images up"
