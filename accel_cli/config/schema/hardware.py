"""Hardware: the device that ranks train on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option

BACKENDS = {"cuda": "nccl", "xpu": "xccl", "tpu": "tpu_dist"}
"""Device -> the process group that moves its memory; the others' tensors travel by gloo."""


class Hardware(Option):
    """What every device has: a processor beside it, on which the ranks themselves run."""

    threads: Count | Literal["auto"] = Field(description="CPU threads of one process; auto: cores / processes")
    affinity: Literal["auto", "cores", "none"] = Field(
        description="cores: each process keeps to its own share of the cores; auto: where memory has several nodes"
    )
    allocator: Literal["auto", "system", "tuned", "tcmalloc", "jemalloc"] = Field(
        description="who hands out host memory; tuned: glibc's, keeping what was freed; auto: tuned on a CPU"
    )


class Auto(Hardware):
    """The best device this machine has: cuda, else xpu, else mps, else cpu."""

    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        description="how images and filters lie in memory; auto: channels_last where it is known to pay"
    )


class CPU(Auto):
    """The processor's cores, shared evenly among the processes."""

    memory_gigabytes: float | None = Field(
        gt=0, description="most memory that the training in one process may take, in 10^9 bytes; null: what is there"
    )


class CUDA(Auto):
    """NVIDIA GPUs (and AMD under ROCm), one for each process."""

    cudnn_autotune: bool = Field(
        description="try cuDNN's kernels for every new shape and keep the fastest; not with train.determinism=exact"
    )
    memory_fraction: float | None = Field(
        gt=0, le=1, description="most of its GPU's memory that a process may take; null: all"
    )


class XPU(Auto):
    """Intel GPUs, one for each process; not tried on the device."""


class MPS(Hardware):
    """The GPU of an Apple computer; one process; not tried on the device."""


class TPU(Hardware):
    """Google TPUs through TorchTPU, one chip for each process; not tried on the device."""


OPTIONS = {
    "auto": Entry(Auto, "accel_cli.hardware.base:Hardware"),
    "cpu": Entry(CPU, "accel_cli.hardware.base:Hardware"),
    "cuda": Entry(CUDA, "accel_cli.hardware.cuda:CUDA"),
    "xpu": Entry(XPU, "accel_cli.hardware.xpu:XPU"),
    "mps": Entry(MPS, "accel_cli.hardware.mps:MPS"),
    "tpu": Entry(TPU, "accel_cli.hardware.tpu:TPU", requires=("torch_tpu",)),
}
