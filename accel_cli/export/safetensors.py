"""The weights alone, for whoever has the model's code; model.json says what builds the model around them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from accel_cli.config.parts import implementation, table
from accel_cli.description import DataDescription
from accel_cli.export.base import Export

FILE = "model.safetensors"


class Safetensors(Export):
    """Names and values as the model has them; a tensor of two names is written once."""

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        save_model(model, str(folder / FILE))
        return [folder / FILE]

    def load(self, folder: Path) -> Callable[[Tensor], Tensor]:
        """The model, built again by what model.json says, with every tensor of the file in its place."""
        built_from = json.loads((folder / "model.json").read_text())["built_from"]
        chosen: dict[str, Any] = built_from["model"]
        option = table("model")[chosen["option"]].schema.model_validate(chosen)
        model: nn.Module = implementation("model", option)(option, DataDescription.from_dict(built_from["description"]))
        load_model(model, folder / FILE, strict=True)
        return model.eval()
