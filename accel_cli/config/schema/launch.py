"""Launch: where ranks run and how they find each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


class Local(Option):
    """The same command on every node; on one machine over loopback."""

    processes: Count | Literal["auto"] = Field(
        description="ranks to start on each node; auto: every GPU, on a CPU the least that the strategy needs"
    )
    nodes: Count | Annotated[str, Field(pattern=r"^[1-9]\d*:[1-9]\d*$")] = Field(
        description="machines, or MIN:MAX for as many as there are at a time"
    )
    rendezvous: str | None = Field(description="host:port of the first node, where the others find it")
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


OPTIONS = {"local": Entry(Local, "accel_cli.launch.local:start")}
