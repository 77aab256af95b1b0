"""Compile: what torch.compile makes of the model."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Eager(Option):
    """The model runs as written."""


class _Compiled(Option):
    backend: str = Field(min_length=1, description="torch.compile backend: inductor, aot_eager, ...")
    dynamic: bool | None = Field(description="null: recompile with dynamic shapes when a shape changes")
    cuda_graphs: bool = Field(description="record the kernels of a pass and replay them at once, on a GPU")


class Full(_Compiled):
    """The whole model through torch.compile; the first step pays for it."""


class Blocks(_Compiled):
    """Each of the model's like parts by itself: a deep model compiles about as fast as one block."""


class MaxAutotune(_Compiled):
    """The whole model, with several kernels timed for each product: the longest first step."""


class Auto(_Compiled):
    """Compiled where a few steps show that it pays before the run ends and computes the same."""


OPTIONS = {
    "none": Entry(Eager, "accel_cli.compile.base:Compile"),
    "full": Entry(Full, "accel_cli.compile.full:Full"),
    "blocks": Entry(Blocks, "accel_cli.compile.blocks:Blocks"),
    "max_autotune": Entry(MaxAutotune, "accel_cli.compile.max_autotune:MaxAutotune"),
    "auto": Entry(Auto, "accel_cli.compile.base:Compile"),
}
