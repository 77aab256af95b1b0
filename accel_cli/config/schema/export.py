"""Export: the form in which the trained model leaves the run."""

from __future__ import annotations

from accel_cli.config.schema.base import Entry, Option


class Export(Option):
    """Nothing is exported; the checkpoint is all."""


OPTIONS = {"none": Entry(Export, "accel_cli.export.base:Export")}
