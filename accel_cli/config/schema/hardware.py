"""Hardware: the device that ranks train on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


class Auto(Option):
    """The best device this machine has: cuda, else mps, else cpu."""

    threads: Count | Literal["auto"] = Field(description="CPU threads of one process; auto: cores / processes")


class CPU(Auto):
    """The processor's cores, shared evenly among the processes."""

    memory_gigabytes: float | None = Field(
        gt=0, description="most memory that the training in one process may take, in 10^9 bytes; null: what is there"
    )


class CUDA(Auto):
    """NVIDIA GPUs (and AMD under ROCm), one for each process."""


class MPS(Auto):
    """The GPU of an Apple computer; one process."""


OPTIONS = {
    "auto": Entry(Auto, "accel_cli.hardware.base:Hardware"),
    "cpu": Entry(CPU, "accel_cli.hardware.base:Hardware"),
    "cuda": Entry(CUDA, "accel_cli.hardware.cuda:CUDA"),
    "mps": Entry(MPS, "accel_cli.hardware.mps:MPS"),
}
