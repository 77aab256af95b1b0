"""Which channels of a model hang together, and which of them matter least."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import nn
from torch.utils._pytree import tree_leaves

from accel_cli.compression.operations import multiply_adds_by_module
from accel_cli.config.schema.compression import PruneStructured as Config
from accel_cli.errors import ConfigError, Problem

KEY = "compression.passes.prune_structured"
HEAD_WIDTHS = ("head_width", "head_dim")
"""What attention modules call the width of a head: ours, and timm's."""


class Unit(NamedTuple):
    """Channels that go together, because a layer's width stays a multiple, or because they are a head."""

    lost: float
    """Share of the layer's importance that goes with it."""
    saved: float
    """Multiply-adds, of one sample, about."""
    shrinks: float
    """Share of the model's multiply-adds that go with it, and of its parameters, added."""
    left: float
    """Share of the layer's channels that stay before it is taken out."""
    root: nn.Module
    prune: Any
    channels: list[int]
    heads: tuple[nn.Module, ...]


class Graph:
    """Which channels of a model hang together. Raises ConfigError where it cannot be told, or where none are free."""

    def __init__(self, model: nn.Module, task: Any, example: Any, config: Config, least: float) -> None:
        """``least``: the share of a layer's channels that stays in any case."""
        self.model, self.task, self.example, self.config, self.least = model, task, example, config, least
        self.names = {module: name for name, module in model.named_modules()}
        self.history: list[Any] = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of parameters without a module: their last dimension is cut
                self.graph = torch_pruning.DependencyGraph().build_dependency(
                    model, example, forward_fn=lambda module, batch: task.forward(module, batch)
                )
        except Exception as error:  # whatever the user's code does when it is traced
            why = f"torch-pruning cannot follow this model: {type(error).__name__}: {str(error)[:120]}"
            raise ConfigError(
                Problem("compression=prune_structured", why, "try compression=prune_magnitude")
            ) from error
        self.widths = {module: self._width(module) for module in self.names}
        self.fixed = self._fixed()
        if not any(True for _ in self._units({})):
            why = f"no layer can lose {config.multiple} channels and keep {least:.2g} of them"
            fix = f"try {KEY}.multiple=1, or a wider model"
            raise ConfigError(Problem("compression=prune_structured", why, fix))

    def prune(self, share: float) -> tuple[int, int]:
        """Take out units until that share of the multiply-adds is left; returns how many are left and there were.

        First come those that lose the least for what they shrink, at last the one that saves no more than is wanted.
        """
        operations = self._count()
        whole, most = operations[""], share * operations[""]
        while operations[""] > most:
            chosen = self._choose(list(self._units(operations)), operations[""] - most)
            if not chosen:
                break
            for unit in chosen:
                group = self.graph.get_pruning_group(unit.root, unit.prune, unit.channels)
                heads = [self.names[head] for head in unit.heads]
                self.history.append((self.names[unit.root], unit.prune.__name__, unit.channels, heads))
                group.prune()
                self._fewer_heads(unit.heads)
            operations = self._count()
        return operations[""], whole

    def _choose(self, units: list[Unit], remaining: float) -> list[Unit]:
        """Which go next, one a layer at most: importance is measured anew after half of the way that remains."""
        if enough := [unit for unit in units if unit.saved >= remaining]:
            return [min(enough, key=lambda u: (u.saved, u.lost))]
        if self.config.scope == "layer":
            units.sort(key=lambda u: (-u.left, u.lost))
        else:
            units.sort(key=lambda u: (u.lost / max(u.shrinks, 1e-12), -u.left))
        chosen, saved = units[:1], sum(unit.saved for unit in units[:1])
        for unit in units[1:]:
            saved += unit.saved
            if saved > remaining / 2:
                break
            chosen.append(unit)
        return chosen

    def repeat(self, history: list[Any]) -> None:
        """Do what another graph of the same model has done."""
        for name, prune, channels, heads in history:
            root = self.model.get_submodule(name)
            pruner = getattr(self.graph.get_pruner_of_module(root), prune)
            self.graph.get_pruning_group(root, pruner, channels).prune()
            self._fewer_heads(tuple(self.model.get_submodule(head) for head in heads))

    def _count(self) -> dict[str, int]:
        try:
            return multiply_adds_by_module(self.model, self.task, self.example)
        except Exception as error:
            if not self.history:
                raise
            name = self.history[-1][0]
            why = f"without some channels of {name} the model no longer runs: {str(error)[:120]}"
            raise ConfigError(Problem(f"{KEY}.keep", why, f'try {KEY}.keep=["{name}"]')) from error

    def _units(self, operations: dict[str, int]) -> Iterator[Unit]:
        kinds = [torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR]
        measure = (
            torch_pruning.importance.GroupTaylorImportance()
            if any(p.grad is not None for p in self.model.parameters())
            else torch_pruning.importance.GroupMagnitudeImportance(p=2)
        )
        for group in self.graph.get_all_groups(ignored_layers=[], root_module_types=kinds):
            members = [(dep.target.module, dep.handler) for dep, _ in group]
            if any(self._is_fixed(module, prune) for module, prune in members):
                continue
            root, prune = group[0].dep.target.module, group[0].dep.handler
            width = self._width(root)
            most = self.widths[root]
            heads = self._heads([module for module, _ in members])
            step = heads[1] if heads else self._multiple(members)
            stays = max(step, math.ceil(self.least * most / step) * step)
            if width - step < stays:
                continue
            importance = measure(group)
            if importance is None or len(importance) != width:
                continue
            importance = importance.double()
            if heads:
                by_head = importance.view(-1, step).sum(1)
                first = int(by_head.argmin())
                channels = list(range(first * step, (first + 1) * step))
            else:
                channels = sorted(importance.argsort(stable=True)[:step].tolist())
            lost = float(importance[channels].sum() / importance.sum().clamp(min=1e-30))
            shares = [(dep.target.module, self._share_of(dep, len(channels))) for dep, _ in group]
            saved = sum(share * operations.get(self.names.get(module, ""), 0) for module, share in shares)
            smaller = sum(share * _weights(module) for module, share in shares)
            shrinks = saved / max(operations.get("", 0), 1) + smaller / max(_weights(self.model, whole=True), 1)
            yield Unit(lost, saved, shrinks, width / most, root, prune, channels, heads[0] if heads else ())

    def _share_of(self, dependency: Any, count: int) -> float:
        """Of one layer's multiply-adds and weights that go with so many of its channels."""
        module = dependency.target.module
        out = self.graph.is_out_channel_pruning_fn(dependency.handler)
        width = (self.graph.get_out_channels if out else self.graph.get_in_channels)(module)
        return count / width if module in self.names and width else 0.0

    def _multiple(self, members: list[tuple[nn.Module, Any]]) -> int:
        """Groups of convolutions and norms stay equally wide: what is taken out is a multiple of their number."""
        groups = [getattr(module, "groups", getattr(module, "num_groups", 1)) for module, _ in members]
        return math.lcm(self.config.multiple, *(g for g in groups if isinstance(g, int) and g > 1))

    def _heads(self, modules: list[nn.Module]) -> tuple[tuple[nn.Module, ...], int] | None:
        """(the attention modules whose heads these layers make, the width of a head)"""
        found, width = [], 0
        for module in modules:
            parent = self.names.get(module, "").rpartition(".")[0]
            owner = self.model.get_submodule(parent)
            own = next((getattr(owner, key) for key in HEAD_WIDTHS if isinstance(getattr(owner, key, None), int)), 0)
            if own and owner not in found and module in self._inner(owner):
                found.append(owner)
                width = own
        return (tuple(found), width) if found else None

    def _inner(self, owner: nn.Module) -> list[nn.Module]:
        """The layers of an attention module whose outputs are heads."""
        return [
            child for name, child in owner.named_children() if name in ("query", "key", "value", "qkv", "q", "k", "v")
        ]

    def _fewer_heads(self, owners: tuple[nn.Module, ...]) -> None:
        for owner in owners:
            if isinstance(getattr(owner, "num_heads", None), int):
                owner.num_heads = int(owner.num_heads) - 1  # type: ignore[arg-type,assignment]

    def _is_fixed(self, module: nn.Module, prune: Any) -> bool:
        return module in self.fixed and (self.fixed[module] or self.graph.is_out_channel_pruning_fn(prune))

    def _fixed(self) -> dict[nn.Module, bool]:
        """Modules that keep their output width; True: that may not change at all, since they share a parameter."""
        patterns = self.config.keep
        names = [name for name in self.names.values() if name]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                near = (difflib.get_close_matches(pattern, names, n=1, cutoff=0) or names)[0]
                fix = f"did you mean {KEY}.keep=[{near}] ?"
                raise ConfigError(Problem(f"{KEY}.keep=[{pattern}]", "matches no module of this model", fix))
        fixed = {m: False for m, name in self.names.items() if any(fnmatchcase(name, p) for p in patterns)}
        fixed |= dict.fromkeys(self._outputs(), False)
        owners: dict[int, list[nn.Module]] = {}
        for module in self.names:
            for parameter in module.parameters(recurse=False):
                owners.setdefault(id(parameter), []).append(module)
        return fixed | {module: True for shared in owners.values() if len(shared) > 1 for module in shared}

    def _outputs(self) -> list[nn.Module]:
        """The modules that make what the model gives."""
        made: list[tuple[nn.Module, Any]] = []  # tensors and not their ids: of one that is gone, another may have it
        handles = [
            module.register_forward_hook(lambda m, _, output: made.extend((m, x) for x in tree_leaves(output)))
            for module in self.names
            if next(module.children(), None) is None
        ]
        try:
            with torch.no_grad():
                given = {id(leaf) for leaf in tree_leaves(self.task.forward(self.model, self.example))}
        finally:
            for handle in handles:
                handle.remove()
        weighted = [(module, tensor) for module, tensor in made if list(module.parameters())]
        return [module for module, tensor in weighted if id(tensor) in given] or [m for m, _ in weighted[-1:]]

    def _width(self, module: nn.Module) -> int:
        return int(self.graph.get_out_channels(module) or 0) if module in self.graph.module2node else 0


def _weights(module: Any, *, whole: bool = False) -> int:
    """Numbers in a module's own parameters, or in all."""
    return sum(p.numel() for p in module.parameters(recurse=whole)) if isinstance(module, nn.Module) else 0
