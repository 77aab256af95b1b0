"""Launch: where ranks run and how they find each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


class Local(Option):
    """Processes of this machine, over loopback."""

    processes: Count | Literal["auto"] = Field(
        description="ranks to start; auto: every GPU, on a CPU the least that the strategy needs"
    )
    backend: Literal["auto", "gloo", "nccl"] = Field(description="process group; auto: nccl on cuda, else gloo")
    wait: float = Field(gt=0, description="seconds a rank waits for the others in one collective before it fails")


OPTIONS = {"local": Entry(Local, "accel_cli.launch.local:start")}
