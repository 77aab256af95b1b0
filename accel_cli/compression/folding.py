"""BatchNorm in evaluation is a scale and a shift of each channel: the layer before it can do both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.compression.flow import Flow, is_norm, tensors
from accel_cli.compression.quantized import KINDS

AGREES = 1e-3
"""Of the largest output: rounding moves it by less, another computation by more."""


@torch.no_grad()
def fold(model: nn.Module, forward: Callable[[], Any]) -> list[tuple[str, str]]:
    """Fold in place every BatchNorm that reads a layer's output, alone; (layer, norm) of those that agreed.

    Evaluation mode. ``forward`` runs the model on a few samples.
    """
    flow = Flow(model, lambda module: type(module) in KINDS or is_norm(module)).watch(forward)
    before = [tensor.clone() for tensor in tensors(forward())]
    found = []
    for layer, output in flow.outputs.items():
        readers = output.readers
        if len(readers) != 1 or not isinstance(readers[0], str) or flow.calls[layer] != 1:
            continue
        norm = readers[0]
        if type(model.get_submodule(layer)) not in KINDS or flow.calls.get(norm) != 1:
            continue
        if (kept := _fold(model, layer, norm)) is None:
            continue
        if all(map(_close, tensors(forward()), before)):
            found.append((layer, norm))
        else:
            _put_back(model, layer, norm, *kept)
    return found


def shape(model: nn.Module, pairs: list[list[str]]) -> None:
    """The structure of what was folded, of any values."""
    for layer, norm in pairs:
        _with_bias(model.get_submodule(layer))
        model.set_submodule(norm, nn.Identity())


def _fold(model: nn.Module, layer: str, norm: str) -> tuple[Any, ...] | None:
    """What has to be put back; None for a module that is no such norm."""
    into: Any = model.get_submodule(layer)
    source: Any = model.get_submodule(norm)
    if not is_norm(source) or source.running_var is None:
        return None
    kept = into.weight.clone(), into.bias, source
    # In fp64: a channel whose variance is tiny is scaled by a lot.
    factor = (source.running_var.double() + source.eps).rsqrt()
    shift = -source.running_mean.double() * factor
    if source.affine:
        factor, shift = factor * source.weight.double(), shift * source.weight.double() + source.bias.double()
    if into.bias is not None:
        shift = shift + into.bias.double() * factor
    into.weight.copy_(into.weight.double() * factor.view(-1, *(1,) * (into.weight.dim() - 1)))
    into.bias = None
    _with_bias(into)
    into.bias.copy_(shift)
    model.set_submodule(norm, nn.Identity())
    return kept


def _with_bias(layer: Any) -> None:
    if layer.bias is None:
        weight = layer.weight
        zeros = torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
        layer.bias = nn.Parameter(zeros, requires_grad=weight.requires_grad)


def _put_back(model: nn.Module, layer: str, norm: str, weight: Tensor, bias: Any, source: nn.Module) -> None:
    into: Any = model.get_submodule(layer)
    into.weight.copy_(weight)
    into.bias = bias
    model.set_submodule(norm, source)


def _close(output: Tensor, before: Tensor) -> bool:
    if not before.is_floating_point():
        return torch.equal(output, before)
    return bool((output - before).abs().max() <= AGREES * before.abs().max())
