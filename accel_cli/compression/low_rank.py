"""Layers of low rank in place of full ones, where that saves multiply-adds."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from accel_cli.compression.base import Pass
from accel_cli.compression.factored import factorable, factored, shaped, sides, values
from accel_cli.compression.operations import multiply_adds
from accel_cli.config.schema.compression import LowRank as Config
from accel_cli.config.suggest import unmatched
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed

KEY = "compression.passes.low_rank"


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
        layers = self._free(model, border)
        ranks = {name: rank for name, layer in layers.items() if (rank := self._rank(layer))}
        if not ranks:
            where, why = self._asked(), f"of {len(layers)} layers none would need fewer multiply-adds"
            raise ConfigError(Problem(where, why, f"try {KEY}.multiply_adds=0.5 {KEY}.energy=null"))
        before = counts(model, border)
        for name, rank in ranks.items():
            model.set_submodule(name, factored(layers[name], rank))
        try:
            after = counts(model, border)
        except AttributeError as error:
            why = f"the model reads a layer's weight itself: {error}"
            raise ConfigError(Problem(f"{KEY}.layers", why, "leave that layer out of the patterns")) from error
        notes = (
            f"{len(ranks)} of {len(layers)} layers are of low rank: {before[0]:,} parameters became {after[0]:,}, "
            f"{before[1]:,} multiply-adds of a sample {after[1]:,}",
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

    @torch.no_grad()
    def _free(self, model: nn.Module, border: Border) -> dict[str, nn.Linear | nn.Conv2d]:
        """The layers that a forward pass calls, and that share their weight with no other."""
        owners: dict[int, int] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        layers = {n: layer for n, layer in self._candidates(model).items() if owners[id(layer.weight)] == 1}
        called: set[nn.Module] = set()
        handles = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers.values()]
        try:
            border.task.forward(model, border.example)
        finally:
            for handle in handles:
                handle.remove()
        return {name: layer for name, layer in layers.items() if layer in called}

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


def counts(model: nn.Module, border: Border) -> tuple[int, int]:
    """(parameters, multiply-adds of a sample)"""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return parameters, multiply_adds(model, border.task, border.example)
