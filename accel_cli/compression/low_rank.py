"""Layers of low rank in place of full ones, where that saves multiply-adds."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.compression.base import Pass
from accel_cli.compression.factored import factorable, factored, shaped, sides, values
from accel_cli.config.schema.compression import LowRank as Config
from accel_cli.config.suggest import unmatched
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed

KEY = "compression.passes.low_rank"
SAMPLES = 2
"""In a border's example."""


class LowRank(Pass):
    """Every matrix and convolution as two thinner ones, by its singular values: Denton et al. 2014, arXiv:1404.0736.

    Training goes on with both factors. Other layers keep the optimizer's state.
    """

    config: Config

    def check(self, model: nn.Module, task: Any, outputs: Any) -> None:
        """Raise ConfigError for patterns that match no layer."""
        self._candidates(model)

    def borders(self, steps: int) -> tuple[int, ...]:
        return (min(round(steps * self.config.start), steps),)

    def change(self, model: nn.Module, border: Border) -> Changed:
        """Raises ConfigError where no layer can become cheaper."""
        positions = calls(model, border)
        owners: dict[int, int] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        layers = {
            name: layer
            for name, layer in self._candidates(model).items()
            if positions.get(name) and owners[id(layer.weight)] == 1
        }
        ranks = {name: rank for name, layer in layers.items() if (rank := self._rank(layer))}
        if not ranks:
            where, why = self._asked(), f"of {len(layers)} layers none would need fewer multiply-adds"
            raise ConfigError(Problem(where, why, f"try {KEY}.multiply_adds=0.5 {KEY}.energy=null"))
        before = counts(model, positions)
        saved = sum(positions[name] * (math.prod(sides(layers[name])) - rank * sum(sides(layers[name])))
                    for name, rank in ranks.items())  # fmt: skip
        for name, rank in ranks.items():
            model.set_submodule(name, factored(layers[name], rank))
        self._try(model, border)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        notes = (
            f"{len(ranks)} of {len(layers)} layers are of low rank: "
            f"{before[0]:,} parameters became {parameters:,}, {before[1]:,} multiply-adds of a sample "
            f"{before[1] - saved:,}",
        )
        return Changed(model, {"ranks": ranks}, notes=notes)

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        for name, rank in record["ranks"].items():
            model.set_submodule(name, shaped(model.get_submodule(name), rank))  # type: ignore[arg-type]
        return model

    def _candidates(self, model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
        every = {name: module for name, module in model.named_modules() if name and factorable(module)}
        problems = [
            unmatched(f"{KEY}.layers={pattern}", pattern, list(every), KEY + ".layers=[{}]", "layer")
            for pattern in self.config.layers
            if not any(fnmatchcase(name, pattern) for name in every)
        ]
        if problems:
            raise ConfigError(problems)
        return {name: m for name, m in every.items() if any(fnmatchcase(name, p) for p in self.config.layers)}

    def _rank(self, layer: nn.Linear | nn.Conv2d) -> int:
        """The rank for a layer; 0 where it would save nothing.

        A multiple of ``multiple``, as oneDNN and tensor cores work in blocks, where the layer is not too small for one.
        """
        config, (outputs, inputs) = self.config, sides(layer)
        most = (outputs * inputs - 1) // (outputs + inputs)
        if config.multiply_adds is not None:
            rank = int(config.multiply_adds * outputs * inputs / (outputs + inputs))
            return rank // config.multiple * config.multiple or rank
        energy = values(layer).double().square().cumsum(0)
        rank = int((energy < (config.energy or 1.0) * energy[-1]).sum()) + 1
        rounded = -(-rank // config.multiple) * config.multiple
        return rounded if rounded <= most else rank if rank <= most < config.multiple else 0

    def _asked(self) -> str:
        energy = self.config.energy
        return f"{KEY}.{f'multiply_adds={self.config.multiply_adds}' if energy is None else f'energy={energy}'}"

    @torch.no_grad()
    def _try(self, model: nn.Module, border: Border) -> None:
        try:
            border.task.forward(model, border.example)
        except AttributeError as error:
            why = f"the model reads a layer's weight itself: {error}"
            raise ConfigError(Problem(f"{KEY}.layers", why, "leave that layer out of the patterns")) from error


@torch.no_grad()
def calls(model: nn.Module, border: Border) -> dict[str, int]:
    """Output positions of a sample, by the name of every linear layer and convolution that a forward pass calls."""
    found: dict[str, int] = {}

    def count(name: str) -> Any:
        def add(layer: nn.Linear | nn.Conv2d, inputs: Any, output: Tensor) -> None:
            found[name] = found.get(name, 0) + output.numel() // sides(layer)[0]

        return add

    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    handles = [layer.register_forward_hook(count(name)) for name, layer in layers.items()]
    try:
        border.task.forward(model, border.example)
    finally:
        for handle in handles:
            handle.remove()
    return {name: size // SAMPLES for name, size in found.items()}


def counts(model: nn.Module, positions: dict[str, int]) -> tuple[int, int]:
    """(parameters, multiply-adds of a sample) of a model; those of linear layers and convolutions."""
    total = 0
    for name, size in positions.items():
        layer: Any = model.get_submodule(name)
        total += size * math.prod(sides(layer))
    return sum(parameter.numel() for parameter in model.parameters()), total
