"""The mesh of ranks that a strategy lays a model over, as far as the configuration tells."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from accel_cli.config.schema.base import Count, Option

DIMENSIONS = ("pipeline", "replicate", "shard", "context", "tensor")
"""Outermost to innermost."""
Size = Count | Literal["auto"]


class Layout(Option):
    """How many processes a strategy takes, and how they stand to each other."""

    def stated(self) -> dict[str, int | str]:
        """The dimensions that this strategy spreads over; one may be ``auto``, which takes what the others leave."""
        return {}

    @property
    def least_processes(self) -> int:
        """The fewest processes in which the strategy does anything."""
        sizes = self.stated()
        given = math.prod(size for size in sizes.values() if isinstance(size, int))
        return given * 2 if "auto" in sizes.values() and (given == 1 or len(sizes) == 2) else given

    def sizes(self, processes: int) -> dict[str, int]:
        """Ranks along every dimension; their product is ``processes`` if the stated ones divide it."""
        sizes = {**dict.fromkeys(DIMENSIONS, 1), **self.stated()}
        given = math.prod(size for size in sizes.values() if isinstance(size, int))
        return {name: max(1, processes // given) if size == "auto" else int(size) for name, size in sizes.items()}

    def data_ranks(self, processes: int) -> int:
        """Of so many processes those that get samples of their own."""
        sizes = self.sizes(processes)
        return sizes["replicate"] * sizes["shard"]


class OneProcess(Layout):
    @property
    def least_processes(self) -> int:
        return 1


class Replicated(Layout):
    bucket_megabytes: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        description="gradients are sent in buckets of this size, in MB; auto: 25, and 1 over gloo between machines"
    )
    static_graph: bool = Field(description="promise that every step uses the same parameters in the same order")
    gradient_as_bucket_view: bool = Field(description="gradients live inside the buckets: less memory, no copy")
    find_unused_parameters: bool | Literal["auto"] = Field(
        description="allow steps that leave parameters unused; also keeps the bucket order, so that a resumed "
        "run repeats bit for bit; auto: with more than two processes on gloo"
    )


class Sharded(Layout):
    reshard_after_forward: bool = Field(
        description="free a block's weights after forward and gather them again in backward: less memory, more bytes"
    )
    parameter_dtype: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        description="what weights are gathered and used in; auto: the precision's own on a GPU, fp32 on a CPU"
    )
    offload: Literal["none", "cpu"] = Field(description="where shards rest between steps")


class Cut(Layout):
    balance: Literal["counted", "measured"] = Field(
        description="cost by which stages are made equal: counted operations, or measured time"
    )
    cut: list[str] | None = Field(
        description="first module of each stage but the first, as [blocks.2,blocks.4]; null: by balance"
    )


Name = Annotated[str, BeforeValidator(str)]
"""Of a part of the model; the layers of an nn.Sequential are numbers."""


class Sliced(Layout):
    plan: Literal["auto"] | dict[Name, Literal["colwise", "rowwise", "colwise_gather_output"]] = Field(
        description="layers by name pattern and how their matrices are cut, as {blocks.*.expand:colwise,"
        "blocks.*.contract:rowwise}; auto: the model's own plan, or every pair that proves to fit"
    )
    sequence_parallel: bool = Field(
        description="norms and dropout between cut layers work on a slice of the sequence: less memory; gpt and vit"
    )


class Pipelined(Cut):
    schedule: Literal["gpipe", "1f1b", "interleaved", "zero_bubble"] = Field(
        description="the order of micro-batches: gpipe, 1f1b (less memory), interleaved or zero_bubble (less waiting)"
    )
    micro_batches: Size = Field(
        description="parts of a batch that the stages work on at a time, a multiple of the processes that hold stages; "
        "auto: the fewest that fit train.micro_batch"
    )
    stages_per_rank: Size = Field(description="stages in a process; auto: 2 if interleaved, else 1")
