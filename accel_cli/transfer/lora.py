"""Train low-rank additions to layers that stay as they are; at the end they are part of them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from accel_cli.config.schema.transfer import Lora as Schema
from accel_cli.config.suggest import unmatched
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.structure import Border, Changed
from accel_cli.transfer.adapters import adapt, adaptable, largest_rank, merge
from accel_cli.transfer.base import Transfer
from accel_cli.transfer.depth import depths
from accel_cli.transfer.finetune import begin, still
from accel_cli.transfer.head import Head, find, named
from accel_cli.transfer.weights import plain

NO_HEAD = "transfer.head=null"


class Lora(Transfer):
    """Hu et al. 2021, arXiv:2106.09685. The head, and what the weights did not fill, is trained whole."""

    config: Schema
    measured = False

    def __init__(self, config: Schema):
        super().__init__(config)
        self.new: set[str] = set()

    def apply(self, model: nn.Module, description: DataDescription | None = None) -> list[str]:
        """Load. Raises ConfigError for what cannot be found or matched, SecurityError for a pickle."""
        new, lines = begin(model, self.config.weights, description)
        self.new = new or set()
        return lines

    def borders(self, steps: int) -> tuple[int, ...]:
        return (0, steps)

    def change(self, model: nn.Module, border: Border) -> Changed:
        """Add before training, merge after it. Raises ConfigError for patterns that match no layer."""
        if border.step:
            names = [name for name, module in model.named_modules() if hasattr(module, "lora_a")]
            record: dict[str, Any] = {"merged": names}
            return Changed(self.replay(model, record), record, notes=(f"{len(names)} additions merged into weights",))
        whole = self._whole(model, border)
        layers, left = self._layers(model, border, whole)
        record = {
            "ranks": {name: min(self.config.rank, largest_rank(layer)) for name, layer in layers.items()},
            "whole": whole,
        }
        self._add(model, record, border.seed)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        notes = [f"{len(layers)} layers with an addition of rank {self.config.rank}, {trained:,} of {total:,} numbers "
                 f"are trained; whole: {', '.join(whole) or 'nothing'}"]  # fmt: skip
        notes += [f"without an addition, {why}: {', '.join(names)}" for why, names in left.items() if names]
        return Changed(model, record, notes=tuple(notes))

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        if "merged" in record:
            for name in record["merged"]:
                merge(model, name)
        else:
            self._add(model, record, 0)
        return model

    def rates(self, model: nn.Module) -> dict[str, float]:
        """layer_decay as with finetune, times head_rate for what is trained whole."""
        config, depth_of = self.config, depths(model)
        last = max(depth_of.values(), default=0)
        rates = {
            name: config.layer_decay ** (last - depth_of[name]) * (1.0 if is_added(name) else config.head_rate)
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        return {name: rate for name, rate in rates.items() if rate != 1}

    def frozen_modules(self, model: nn.Module) -> list[nn.Module]:
        return still(model)

    def _add(self, model: nn.Module, record: dict[str, Any], seed: int) -> None:
        whole = set(record["whole"])
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(plain(name) in whole)
        for name, rank in record["ranks"].items():
            adapt(model, name, rank, self.config.alpha, self.config.dropout, seed)

    def _whole(self, model: nn.Module, border: Border) -> list[str]:
        """Names of the parameters that are trained as they are: the head's, and those that no weights filled."""
        asked = self.config.head
        beginning = None
        if asked is not None:
            with torch.no_grad():
                name = find(model, border.task, border.example, NO_HEAD) if asked == "auto" else asked
                Head(name, named(model, name), 1, f"transfer.head={asked}", otherwise=NO_HEAD).alone(model)
            beginning = f"{name}."
        return [plain(name) for name, _ in model.named_parameters()
                if plain(name) in self.new or (beginning is not None and name.startswith(beginning))]  # fmt: skip

    @torch.no_grad()
    def _layers(
        self, model: nn.Module, border: Border, whole: list[str]
    ) -> tuple[dict[str, nn.Linear | nn.Conv2d], dict[str, list[str]]]:
        """The layers that get an addition, and the names of those that a pattern means too, by why they get none."""
        called: set[int] = set()
        handles = [module.register_forward_hook(lambda m, *_: called.add(id(m))) for module in model.modules()]
        try:
            border.task.forward(model, border.example)
        finally:
            for handle in handles:
                handle.remove()
        owners: dict[int, int] = {}
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
        candidates = {n: m for n, m in model.named_modules() if n and isinstance(m, nn.Linear | nn.Conv2d)}
        layers: dict[str, nn.Linear | nn.Conv2d] = {}
        reasons = "of a kind of their own or in groups", "their forward is not called", "they share their weight"
        left: dict[str, list[str]] = {reason: [] for reason in reasons}
        problems = []
        for pattern in self.config.layers:
            if not any(fnmatchcase(name, pattern) for name in candidates):
                problems.append(unmatched(f"transfer.layers={pattern}", pattern, list(candidates),
                                          "transfer.layers=[{}]", "layer"))  # fmt: skip
        if problems:
            raise ConfigError(problems)
        for name, layer in candidates.items():
            if f"{name}.weight" in whole or not any(fnmatchcase(name, pattern) for pattern in self.config.layers):
                continue
            if not adaptable(layer):
                left[reasons[0]].append(name)
            elif id(layer) not in called:
                left[reasons[1]].append(name)
            elif owners[id(layer.weight)] > 1:
                left[reasons[2]].append(name)
            else:
                layers[name] = layer
        if not layers:
            why = "; ".join(f"{reason}: {', '.join(names)}" for reason, names in left.items() if names)
            where = f"transfer.layers=[{','.join(self.config.layers)}]"
            why = f"no layer gets an addition: {why or 'all that match are trained whole'}"
            raise ConfigError(Problem(where, why, "try transfer=finetune"))
        return layers, left


def is_added(name: str) -> bool:
    return name.rpartition(".")[2] in ("lora_a", "lora_b")
