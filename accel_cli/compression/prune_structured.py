"""Structured pruning: the least important channels, neurons and heads are taken out, and tensors shrink."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from accel_cli.compression.base import Pass
from accel_cli.compression.channel_graph import KEY, Graph
from accel_cli.compression.operations import multiply_adds
from accel_cli.compression.resize import difference, flat_indices, resize, sizes
from accel_cli.config.schema.compression import PruneStructured as Config
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed


class PruneStructured(Pass):
    """What a channel is coupled with, through layers, norms and shortcuts, is found by torch-pruning's dependency graph
    (Fang et al. 2023, arXiv:2301.12900), which also has the measures of importance."""

    config: Config

    def borders(self, steps: int) -> tuple[int, ...]:
        c = self.config
        between = ((c.end or c.start) - c.start) / max(1, c.times - 1)
        return tuple(sorted({round((c.start + number * between) * steps) for number in range(c.times)}))

    def check(self, model: nn.Module, task: Any, outputs: Any) -> None:
        """How far it can go depends on widths alone: the weights before training tell it too."""
        self._prune(
            Graph(model.eval(), task, outputs.example, self.config, self.config.least), self.config.multiply_adds
        )

    def change(self, model: nn.Module, border: Border) -> Changed:
        c, before, whole = self.config, sizes(model), multiply_adds(model, border.task, border.example)
        places = copy.deepcopy(model).double()
        if c.importance == "taylor":
            _gradients(model, border, c.samples)
        share, least = (value ** (1 / c.times) for value in (c.multiply_adds, c.least))
        graph = Graph(model, border.task, border.example, c, least)
        left = self._prune(graph, share)
        model.zero_grad(set_to_none=True)
        flat_indices(places)
        Graph(places, border.task, tree_map(_double, border.example), c, least).repeat(graph.history)
        kept = {name: value.detach().round().long() for name, value in places.named_parameters()}
        changed = difference(before, sizes(model))
        note = f"{left / whole:.2f} of the multiply-adds and {_share(before, model):.2f} of the parameters are left"
        return Changed(model, changed, kept, (note,))

    def _prune(self, graph: Graph, share: float) -> int:
        """Multiply-adds that are left. Raises ConfigError where every layer is at its least before."""
        left, whole = graph.prune(share)
        if left > share * whole:
            part = (left / whole) ** (self.config.times if share > self.config.multiply_adds else 1)
            why = f"every layer is at its least, and {part:.2f} of the multiply-adds are left"
            where = f"{KEY}.multiply_adds={self.config.multiply_adds}"
            raise ConfigError(Problem(where, why, self._milder(part)))
        return left

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        return resize(model, record)

    def _milder(self, left: float) -> str:
        """What to type where every layer is at its least: less pruning, or what lets layers become smaller."""
        c, ways = self.config, [f"{KEY}.multiply_adds={math.ceil(100 * left) / 100}"]
        smaller = [f"{KEY}.multiple={c.multiple // 2}"] if c.multiple > 1 else []
        smaller += [f"{KEY}.least={c.least / 2:g}"] if c.least else []
        return "try " + ", or ".join([*ways, " ".join(smaller)] if smaller else ways)


def _gradients(model: nn.Module, border: Border, samples: int) -> None:
    """Of the mean loss over some training samples, into ``grad``."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    for batch in border.batches(samples):
        loss, weight = border.task.loss(model, batch)
        gradients = torch.autograd.grad(loss / weight, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _share(before: dict[str, dict[str, Any]], model: nn.Module) -> float:
    owned = [
        (name, key) for name, module in model.named_modules() for key, p in module._parameters.items() if p is not None
    ]
    return sum(p.numel() for p in model.parameters()) / sum(math.prod(before[name][key]) for name, key in owned)
