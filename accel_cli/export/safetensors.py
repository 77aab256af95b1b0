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

    is_graph = False

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        save_model(model, str(folder / FILE))
        return [folder / FILE]

    def load(self, folder: Path) -> Callable[[Tensor], Tensor]:
        """The model, built again by what model.json says, with every tensor of the file in its place."""
        built_from = json.loads((folder / "model.json").read_text())["built_from"]
        description = DataDescription.from_dict(built_from["description"])
        model: nn.Module = _implementation("model", built_from["model"], description)
        for change in built_from["structure"]:
            if change["record"] is not None:
                model = _part(built_from, change["part"]).replay(model, change["record"])
        load_model(model, folder / FILE, strict=True)
        return model.eval()


def _part(built_from: dict[str, Any], name: str) -> Any:
    """Who made a change: the transfer, or a pass."""
    if name == "transfer":
        return _implementation("transfer", built_from["transfer"])
    return _implementation("compression", built_from["compression"][name])


def _implementation(group: str, values: dict[str, Any], *more: Any) -> Any:
    option = table(group)[values["option"]].schema.model_validate(values)
    return implementation(group, option)(option, *more)
