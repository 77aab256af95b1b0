"""Where the records of a run go beside metrics.jsonl: here, nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accel_cli.config.schema.base import Option


class Tracker:
    """A sink for records. Rank 0 alone has one; nothing that happens in it may harm training."""

    def __init__(self, config: Option, folder: Path) -> None:
        """``folder`` is the run folder."""

    def log(self, record: dict[str, Any]) -> None:
        """Take one object of metrics.jsonl: kind, step, ... and numbers by name."""

    def close(self) -> None:
        """Write out what is held back."""
