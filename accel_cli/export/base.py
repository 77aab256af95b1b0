"""The trained model in a form that other programs run: here, none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from accel_cli.config.schema.base import Option


class Export:
    """Called once by rank 0, after training. The harmless option writes nothing: the checkpoint is all."""

    def __init__(self, config: Option) -> None:
        self.config = config

    def write(self, model: nn.Module, inputs: Any, folder: Path) -> list[Path]:
        """Write ``model`` (in evaluation mode) into ``folder``; the files written.

        ``inputs`` is one batch of what its forward takes, for formats that trace it.
        """
        return []
