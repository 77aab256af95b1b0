"""Compile: what torch.compile makes of the model."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Eager(Option):
    """The model runs as written."""


class Full(Option):
    """The whole model through torch.compile; the first step pays for it."""

    backend: str = Field(min_length=1, description="torch.compile backend: inductor, aot_eager, ...")
    dynamic: bool | None = Field(description="null: recompile with dynamic shapes when a shape changes")


OPTIONS = {
    "none": Entry(Eager, "accel_cli.compile.base:Compile"),
    "full": Entry(Full, "accel_cli.compile.full:Full"),
}
