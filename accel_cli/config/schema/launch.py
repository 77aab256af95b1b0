"""Launch: where ranks run and how they find each other."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


class Ranks(Option):
    """How many ranks there are, and how they talk, wherever they run."""

    processes: Count | Literal["auto"] = Field(
        description="ranks to start on each node; auto: every GPU, on a CPU the least that the strategy needs"
    )
    nodes: Count | Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")] = Field(
        description="machines, or MIN:MAX for as many as there are at a time"
    )
    interface: str = Field(description="network interface to talk over; auto: the one that leads to the rendezvous")
    max_restarts: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        description="times that failed ranks start again from the newest checkpoint; auto: 0, where elastic 10"
    )
    backend: Literal["auto", "gloo", "nccl", "xccl", "tpu_dist"] = Field(
        description="process group; auto: nccl on cuda, xccl on xpu, tpu_dist on tpu, else gloo"
    )
    wait: float = Field(
        gt=0, description="seconds a rank waits for the others in one collective, and a node for the others"
    )

    @property
    def least_nodes(self) -> int:
        return int(str(self.nodes).partition(":")[0])

    @property
    def most_nodes(self) -> int:
        return int(str(self.nodes).rpartition(":")[2])

    @property
    def elastic(self) -> bool:
        """Whether the number of nodes may change while training."""
        return ":" in str(self.nodes)


class Local(Ranks):
    """The same command on every node; on one machine over loopback."""

    rendezvous: str | None = Field(description="host:port of the first node, where the others find it")


class Slurm(Ranks):
    """A batch job of Slurm, whose nodes meet at its first one."""

    rendezvous: ClassVar[None] = None

    partition: str | None = Field(description="the partition to queue in; null: the cluster's default")
    account: str | None = Field(description="what the time is charged to; null: the user's default")
    time: Count | Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d\d){0,2}$")] | None = Field(
        description="limit of the job: minutes, or [DAYS-]HOURS:MINUTES:SECONDS; null: the partition's"
    )
    gpus: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        description="GPUs to ask for on each node; auto: one for each process, on a CPU none"
    )
    cores: Count | Literal["auto"] = Field(
        description="cores to ask for on each node; auto: those of the threads and loader workers of all its processes"
    )
    memory: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = Field(
        description="memory to ask for on each node, such as 16G; null: the partition's default"
    )
    warning: Count = Field(description="seconds before the limit at which the run saves and ends")
    requeue: bool = Field(description="go on by itself, in the queue again, after the limit or a lost node")
    arguments: list[str] = Field(description="further arguments of sbatch, as they are")


OPTIONS = {
    "local": Entry(Local, "accel_cli.launch.begin:local"),
    "slurm": Entry(Slurm, "accel_cli.launch.slurm:submit", programs=("sbatch",)),
}
