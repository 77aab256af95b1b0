"""Loader: how samples become batches on the device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Memory(Option):
    """The whole set in memory: a batch is one gather."""


class Device(Option):
    """The whole set in the accelerator's memory: a batch is gathered and augmented there."""


Prefetch = Annotated[
    Literal["auto"] | Annotated[int, Field(gt=0)],
    Field(description="batches that each prepares ahead; auto: 2, or 4 where that was measured to help"),
]
Timeout = Annotated[float, Field(gt=0, description="seconds to wait for one batch before the run ends as hung")]


class Threads(Option):
    """Threads beside the step read, decode and augment: for what releases the interpreter's lock."""

    threads: Literal["auto"] | Annotated[int, Field(gt=0)] = Field(
        description="threads of each rank; auto: one less than its cores, 1 to 16"
    )
    prefetch: Prefetch
    timeout: Timeout


class Workers(Option):
    """Worker processes read ahead, in the same order as every other loader."""

    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        description="processes of each rank; auto: as few as a measurement finds no slower than more, "
        "without one (a short run) one less than its cores, 16 at most; 0: read in the rank itself"
    )
    prefetch: Prefetch
    timeout: Timeout


class Auto(Workers):
    """The device or memory for arrays and for small sets that stack, else workers."""


class Stream(Workers):
    """Workers that read a few chunks at a time, in an order that allows it."""

    shuffle_chunks: int = Field(gt=0, description="chunks whose samples are shuffled among each other")


OPTIONS = {
    "memory": Entry(Memory, "accel_cli.loader.memory:Memory"),
    "device": Entry(Device, "accel_cli.loader.device:Device"),
    "threads": Entry(Threads, "accel_cli.loader.threads:Threads"),
    "workers": Entry(Workers, "accel_cli.loader.workers:Workers"),
    "stream": Entry(Stream, "accel_cli.loader.chunks:Chunks"),
    "auto": Entry(Auto, "accel_cli.loader.auto:build"),
}
