"""Strategy: how the model and its gradients lie over processes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Single(Option):
    """One process holds the whole model."""


class DDP(Option):
    """A replica in every process; gradients are averaged while backward still runs."""

    bucket_megabytes: float = Field(gt=0, description="gradients are sent in buckets of this size, in MB")
    static_graph: bool = Field(description="promise that every step uses the same parameters in the same order")
    gradient_as_bucket_view: bool = Field(description="gradients live inside the buckets: less memory, no copy")
    find_unused_parameters: bool | Literal["auto"] = Field(
        description="allow steps that leave parameters unused; also keeps the bucket order, so that a resumed "
        "run repeats bit for bit; auto: with more than two processes on gloo"
    )


OPTIONS = {
    "single": Entry(Single, "accel_cli.strategy.base:Strategy"),
    "ddp": Entry(DDP, "accel_cli.strategy.ddp:DDP"),
}
