"""torch.export's own file, which PyTorch reads without the code of the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.export.base import Export
from accel_cli.export.capture import captured

FILE = "model.pt2"


class TorchExport(Export):
    """Read it back with ``torch.export.load("model.pt2").module()``."""

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        torch.export.save(captured(model, inputs, "export=torch_export"), folder / FILE)
        return [folder / FILE]

    def load(self, folder: Path) -> Callable[[Tensor], Tensor]:
        module: Callable[[Tensor], Tensor] = torch.export.load(folder / FILE).module()
        return module

    def facts(self, folder: Path) -> dict[str, Any]:
        return {"batch": "any"}
