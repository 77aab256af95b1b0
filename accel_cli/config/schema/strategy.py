"""Strategy: how the model and its gradients lie over processes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry
from accel_cli.config.schema.mesh import Cut, Layout, OneProcess, Pipelined, Replicated, Sharded, Size, Sliced


class Single(OneProcess):
    """One process holds the whole model."""


class DDP(Replicated):
    """A replica in every process; gradients are averaged while backward still runs."""

    def stated(self) -> dict[str, int | str]:
        return {"replicate": "auto"}


class FSDP(Sharded):
    """Weights, gradients and optimizer state are dealt over all processes, block by block."""

    def stated(self) -> dict[str, int | str]:
        return {"shard": "auto"}


class HSDP(Sharded):
    """Sharded within a group of processes, replicated over groups."""

    replicate: Size = Field(description="groups of processes; auto: processes / shard")
    shard: Size = Field(description="processes in a group; auto: processes / replicate")

    def stated(self) -> dict[str, int | str]:
        return {"replicate": self.replicate, "shard": self.shard}


class Pipeline(Pipelined):
    """Every process holds consecutive layers of the model, and hands micro-batches on to the next."""

    def stated(self) -> dict[str, int | str]:
        return {"pipeline": "auto"}


class Tensor(Sliced):
    """Every process holds a slice of the matrices; all work on the same batch."""

    def stated(self) -> dict[str, int | str]:
        return {"tensor": "auto"}


class Mesh(Sharded, Replicated, Pipelined, Sliced):
    """Any product of replicate, shard, tensor, pipeline and context."""

    replicate: Size = Field(description="replicas, each with batches of its own")
    shard: Size = Field(description="processes that weights and batches are dealt over")
    tensor: Size = Field(description="processes that share every split matrix")
    pipeline: Size = Field(description="processes that hold a stage of the model each")
    context: Size = Field(description="processes that share every sequence")

    def stated(self) -> dict[str, int | str]:
        return {
            "pipeline": self.pipeline,
            "replicate": self.replicate,
            "shard": self.shard,
            "context": self.context,
            "tensor": self.tensor,
        }


class Context(Replicated):
    """Every process holds the whole model and a slice of every sequence."""

    def stated(self) -> dict[str, int | str]:
        return {"context": "auto"}


class Layers(Cut, OneProcess):
    """Layers over the devices of one process, one device at work at a time."""

    devices: Literal["auto"] | Annotated[list[str], Field(min_length=2)] = Field(
        description="one for each part of the model, as [cuda:0,cuda:1] or [cpu,cpu]; auto: every GPU"
    )


class DataParallel(OneProcess):
    """Several GPUs of one process, by torch.nn.DataParallel."""

    devices: Size = Field(description="GPUs that share every batch; auto: all")


class LocalSGD(Layout):
    """Every process trains a replica by itself; the weights are averaged every few steps."""

    steps: Count = Field(description="steps from one averaging to the next; 1: every step is averaged")
    warmup_steps: int = Field(ge=0, description="at first, so many steps that are all averaged")

    def stated(self) -> dict[str, int | str]:
        return {"replicate": "auto"}


class DiLoCo(Layout):
    """Replicas train by themselves for many steps; an outer optimizer joins what they learned: for slow links."""

    steps: Count = Field(description="inner steps of a round")
    outer_learning_rate: float = Field(gt=0, description="of what the replicas learned on average in a round")
    outer_momentum: float = Field(ge=0, lt=1, description="share of the last outer update that is kept")
    nesterov: bool = Field(description="the outer update looks ahead along its momentum")
    compression: Literal["none", "int8"] = Field(description="what travels: fp32, or int8 with a scale for 256 of them")
    overlap: int = Field(
        ge=0, description="inner steps that go on while an exchange runs, before it is applied; 0: they wait for it"
    )
    fragments: Count = Field(description="parts of the model that are exchanged at different steps of a round")

    def stated(self) -> dict[str, int | str]:
        return {"replicate": "auto"}


OPTIONS = {
    "single": Entry(Single, "accel_cli.strategy.base:Strategy"),
    "ddp": Entry(DDP, "accel_cli.strategy.ddp:DDP"),
    "fsdp": Entry(FSDP, "accel_cli.strategy.mesh:Mesh"),
    "hsdp": Entry(HSDP, "accel_cli.strategy.mesh:Mesh"),
    "pipeline": Entry(Pipeline, "accel_cli.strategy.mesh:Mesh"),
    "tensor": Entry(Tensor, "accel_cli.strategy.mesh:Mesh"),
    "context": Entry(Context, "accel_cli.strategy.mesh:Mesh"),
    "layers": Entry(Layers, "accel_cli.strategy.layers:Layers"),
    "dataparallel": Entry(DataParallel, "accel_cli.strategy.dataparallel:DataParallel"),
    "localsgd": Entry(LocalSGD, "accel_cli.strategy.localsgd:LocalSGD"),
    "diloco": Entry(DiLoCo, "accel_cli.strategy.diloco:DiLoCo"),
    "mesh": Entry(Mesh, "accel_cli.strategy.mesh:Mesh"),
}
