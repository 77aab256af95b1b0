"""Compression: passes that make the model smaller around training; several, in order."""

from __future__ import annotations

from accel_cli.config.schema.base import Entry, Option


class Pass(Option):
    """The model keeps its size."""


OPTIONS = {"none": Entry(Pass, "accel_cli.compression.base:Pass")}
