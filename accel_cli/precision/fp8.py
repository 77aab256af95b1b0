"""float8 matrix products in linear layers, by torchao; everything else as in bf16."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torchao.float8 import (
    Float8LinearConfig,
    convert_to_float8_training,
    precompute_float8_dynamic_scale_for_fsdp,
)
from torchao.float8.float8_linear import Float8Linear

from accel_cli.errors import ConfigError, Problem
from accel_cli.precision.bf16 import BF16
from accel_cli.precision.fp8_size import outlook

STEP = 16
"""What every side of a product has to be a multiple of, for the hardware's fp8."""


class FP8(BF16):
    """Factors are scaled to fit e4m3 (forward) and e5m2 (backward; rowwise e4m3 too), by their largest element at
    that moment (Micikevicius et al. 2022, arXiv 2209.05433). Weights stay in fp32, under the same names.
    """

    name = "fp8"
    step = STEP
    layer: type[nn.Linear] = Float8Linear

    def __init__(self, config: Any, device: torch.device) -> None:
        super().__init__(config, device)
        self.converted: dict[str, nn.Linear] = {}
        self.gathers = getattr(config, "gather", "own") == "fp8"

    def convert(self, model: nn.Module, micro_batch: int) -> list[str]:
        layers = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
        left = {name: why for name, layer in layers.items() if (why := self.reason(name, layer))}
        if len(left) == len(layers):
            raise ConfigError(self.nothing(left))
        self.swap(model, set(layers) - set(left), micro_batch)
        self.converted = {name: module for name, module in model.named_modules() if isinstance(module, self.layer)}
        lines = [f"{len(layers) - len(left)} of {len(layers)} linear layers multiply in {self.name}"]
        lines += [f"in bf16: {name}: {why}" for name, why in grouped(left)]
        found = outlook(model)
        return lines if found is None else [*lines, found[1]]

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Layers multiply in fp32 inside. Raises ConfigError where a rank is left with a part that fp8 cannot take."""
        own = self.layer.forward
        self.layer.forward = nn.Linear.forward  # type: ignore[method-assign]
        try:
            yield
        finally:
            self.layer.forward = own  # type: ignore[method-assign]
        for name, layer in self.converted.items():
            outputs, inputs = layer.weight.shape
            if outputs % self.step or inputs % self.step:
                why = f"a rank's part of {name}, {outputs}x{inputs}, is no multiple of {self.step}"
                raise ConfigError(Problem(f"precision={self.name}", why, "try precision=bf16, or fewer parts"))

    def after_step(self, model: nn.Module) -> tuple[Callable[[int], None], ...]:
        """The scales of all gathered weights in one exchange, where each gathering would wait for one of its own."""
        return (lambda step: precompute_float8_dynamic_scale_for_fsdp(model),) if self.gathers else ()

    def reason(self, name: str, layer: nn.Linear) -> str | None:
        """Why a layer stays in bf16; None where it need not."""
        shape = f"{layer.out_features}x{layer.in_features}"
        if not name:
            return f"{shape} is the model itself"
        if layer.out_features % self.step or layer.in_features % self.step:
            return f"{shape} are no multiples of {self.step}"
        if min(layer.out_features, layer.in_features) < self.config.min_size:
            return f"{shape} is smaller than precision.min_size={self.config.min_size}"
        return None

    def nothing(self, left: dict[str, str]) -> Problem:
        """That no layer can be computed so, and what to type."""
        why = "; ".join(f"{name or 'it'}: {why}" for name, why in grouped(left)) or "the model has no linear layer"
        small = [why for why in left.values() if "min_size" in why]
        fix = f"try precision.min_size={self.step}, or precision=bf16" if small else "try precision=bf16"
        return Problem(f"precision={self.name}", f"no layer can multiply in {self.name}: {why}", fix)

    def swap(self, model: nn.Module, names: set[str], micro_batch: int) -> None:
        """Put torchao's layers in the place of those named, with the same parameters."""
        recipe = Float8LinearConfig.from_recipe_name(self.config.recipe)
        # The weight's gradient sums over samples; to fill their number up with zeros is a copy, so only where needed.
        config = replace(recipe, pad_inner_dim=micro_batch % STEP != 0, enable_fsdp_float8_all_gather=self.gathers)
        convert_to_float8_training(model, config=config, module_filter_fn=lambda module, name: name in names)


def grouped(left: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(name, why); like layers once, with ``*`` for the numbers in their names."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, why in left.items():
        groups.setdefault((re.sub(r"\b\d+\b", "*", name), why), []).append(name)
    for (pattern, why), names in groups.items():
        yield (pattern if len(names) > 1 else names[0]), why
