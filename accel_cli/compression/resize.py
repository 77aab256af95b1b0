"""Another width: a record of the sizes that a model's tensors and modules have, and a model brought to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

Sizes = dict[str, dict[str, Any]]
"""Module name -> attribute -> a number, or a list of numbers."""


def sizes(model: nn.Module) -> Sizes:
    """Of every module: the shapes of its own tensors, and its whole-number attributes, such as ``in_channels``."""
    found: Sizes = {}
    for name, module in model.named_modules():
        tensors = {**module._parameters, **module._buffers}
        shapes = {key: list(value.shape) for key, value in tensors.items() if value is not None}
        numbers = {key: value for key, value in vars(module).items() if _is_size(value)}
        found[name] = {**shapes, **{k: list(v) if isinstance(v, tuple) else v for k, v in numbers.items()}}
    return found


def difference(before: Sizes, after: Sizes) -> Sizes:
    """What of ``after`` is not as it was, as JSON."""
    changed = {name: {k: v for k, v in own.items() if before[name].get(k) != v} for name, own in after.items()}
    return {name: own for name, own in changed.items() if own}


def resize(model: nn.Module, changed: Sizes) -> nn.Module:
    """Give a model the sizes that ``difference`` has told, in place; new tensors hold no values."""
    for name, own in changed.items():
        module = model.get_submodule(name)
        for key, value in own.items():
            if module._parameters.get(key) is not None:
                old = module._parameters[key]
                module._parameters[key] = nn.Parameter(old.new_zeros(value), old.requires_grad)  # type: ignore[union-attr]
            elif module._buffers.get(key) is not None:
                module._buffers[key] = module._buffers[key].new_zeros(value)  # type: ignore[union-attr]
            else:
                setattr(module, key, tuple(value) if isinstance(getattr(module, key), tuple) else value)
    return model


def _is_size(value: Any) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(type(each) is int for each in value)
    return type(value) is int


def flat_indices(model: nn.Module) -> None:
    """Let every number of a parameter be its own place in it, counted flat: what survives a change tells what did."""
    with torch.no_grad():
        for parameter in model.parameters():
            places = torch.arange(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
            parameter.copy_(places.view_as(parameter))
