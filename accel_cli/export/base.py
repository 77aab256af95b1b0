"""The trained model in a form that other programs run: here, none."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from accel_cli.config.schema.base import Option


class Export:
    """Written once by rank 0, after training or later; then run in its own runtime, beside PyTorch.

    The harmless option writes nothing: the checkpoint is all.
    """

    def __init__(self, config: Option) -> None:
        self.config = config

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        """Write ``model`` (whole, on the host, in evaluation mode) into ``folder``; the files that make up the model.

        ``inputs`` [n, ...] is a batch of what its forward takes, for formats that trace it. Raises ConfigError naming
        the operation that the format does not know.
        """
        return []

    def load(self, folder: Path) -> Callable[[Tensor], Tensor] | None:
        """What was written, in its own runtime: inputs [n, ...] on the host -> outputs. None where nothing runs it."""
        return None

    def facts(self, folder: Path) -> dict[str, Any]:
        """What else the report shall tell, such as estimated resources, or what was generated and not run."""
        return {}


def deployed(model: nn.Module) -> nn.Module:
    """A copy in which every module that has a ``deployed`` method, as quantized ones do, is what that returns."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "deployed"):
                setattr(module, name, child.deployed())  # type: ignore[operator]
    return model
