"""Communication: how gradients travel between processes."""

from __future__ import annotations

from accel_cli.config.schema.base import Entry, Option


class Exact(Option):
    """Gradients travel as they are."""


OPTIONS = {"exact": Entry(Exact, "accel_cli.communication.base:Communication")}
