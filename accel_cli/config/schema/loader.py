"""Loader: how samples become batches on the device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Memory(Option):
    """The whole set in memory: a batch is one gather."""


class Workers(Option):
    """Worker processes read ahead, in the same order as every other loader."""

    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        description="processes of each rank; auto: one less than its cores, 16 at most; 0: read in the rank itself"
    )
    prefetch: int = Field(gt=0, description="batches that each worker prepares ahead")
    timeout: float = Field(gt=0, description="seconds to wait for one batch before the run ends as hung")


class Auto(Workers):
    """Memory for arrays and for small sets that stack, else workers."""


class Stream(Workers):
    """Workers that read a few chunks at a time, in an order that allows it."""

    shuffle_chunks: int = Field(gt=0, description="chunks whose samples are shuffled among each other")


OPTIONS = {
    "memory": Entry(Memory, "accel_cli.loader.memory:Memory"),
    "workers": Entry(Workers, "accel_cli.loader.workers:Workers"),
    "stream": Entry(Stream, "accel_cli.loader.chunks:Chunks"),
    "auto": Entry(Auto, "accel_cli.loader.auto:build"),
}
