"""Cut a model over the ranks of a mesh, in place: what each holds of a parameter, and what travels at a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from accel_cli.errors import ConfigError, Problem
from accel_cli.strategy.tensor_layers import count_of, is_transposed
from accel_cli.strategy.tensor_moves import PARTS, WHOLE, branch, move

SEQUENCE = Shard(1)
"""[n, L, ...]: a rank works on its part of the sequence (Korthikanti et al. 2022, arXiv 2205.05198)."""


def before(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """``change`` the first argument of every call."""

    def hook(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if arguments:
            return (change(arguments[0]), *arguments[1:]), named
        first = next(iter(named))
        return arguments, {**named, first: change(named[first])}

    module.register_forward_pre_hook(hook, with_kwargs=True)


def after(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """``change`` what every call returns, while the module's parameters are still gathered (FSDP2 frees them after)."""
    module.register_forward_hook(lambda module, arguments, output: change(output), prepend=True)


def end_rows(module: nn.Module, mesh: DeviceMesh, features: int, wanted: Placement) -> None:
    """Add up what the ranks computed, then the bias, once."""
    group = mesh.get_group()

    def change(output: Tensor) -> Tensor:
        output = move(output, group, PARTS, wanted, wanted)
        bias = module._parameters.get("bias")
        if bias is None:
            return output
        held = bias.to_local() if isinstance(bias, DTensor) else bias
        if wanted == SEQUENCE:
            held = branch(held, group)
        return output + held.view(-1, *(1 for _ in range(-1 - features)))

    after(module, change)


def gather(module: nn.Module, mesh: DeviceMesh, features: int) -> None:
    """Every rank gets the whole of what each computed a part of."""
    group = mesh.get_group()
    after(module, lambda output: move(output, group, Shard(output.dim() + features), WHOLE, WHOLE))


def lay_sequence(module: nn.Module, mesh: DeviceMesh, style: str) -> None:
    """``split``: each rank goes on with its part of the output's sequence; ``gather``: the layers inside read all of
    it; ``whole``: every rank gets the whole output; ``sequence``: works on its part, which needs nothing here."""
    group = mesh.get_group()
    if style == "split":
        after(module, lambda output: _split(output, group))
    elif style == "gather":
        before(module, lambda x: move(x, group, SEQUENCE, WHOLE, PARTS))
    elif style == "whole":
        after(module, lambda output: move(output, group, SEQUENCE, WHOLE, WHOLE))


def _split(output: Tensor, group: dist.ProcessGroup) -> Tensor:
    length, parts = output.shape[1], dist.get_world_size(group)
    if length % parts:
        lower = length // parts * parts
        why = f"{length} positions do not divide by {parts}; {f'{lower} and ' * (lower > 0)}{lower + parts} do"
        raise ConfigError(Problem("strategy.sequence_parallel=true", why, "try strategy.sequence_parallel=false"))
    return move(output, group, WHOLE, SEQUENCE, SEQUENCE)


def deal(model: nn.Module, mesh: DeviceMesh, cuts: dict[str, int], device: torch.device) -> None:
    """Make every parameter a DTensor, cut along a dimension or whole on every rank; and buffers that are cut.

    Nothing travels: every rank cuts its own whole model. All of them are, also those that stay whole, because kernels
    over many tensors refuse a mixture of plain ones and DTensors.
    """
    made: dict[int, Tensor] = {}
    for prefix, module in model.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None:
                    continue
                dimension = cuts.get(f"{prefix}.{name}".lstrip("."))
                if id(tensor) not in made:
                    made[id(tensor)] = _dealt(tensor, mesh, dimension, device)
                tensors[name] = made[id(tensor)]  # type: ignore[assignment]


def _dealt(tensor: Tensor, mesh: DeviceMesh, dimension: int | None, device: torch.device) -> Tensor:
    whole = tensor.detach()
    if dimension is None:
        if not isinstance(tensor, nn.Parameter):
            return tensor.to(device)
        own = whole.to(device)
    else:
        own = whole.chunk(mesh.size(), dimension)[mesh.get_local_rank()].to(device)
        own = own.clone(memory_format=torch.contiguous_format)  # a view would keep the whole alive
    placement = Replicate() if dimension is None else Shard(dimension)
    dealt = DTensor.from_local(own, mesh, (placement,), run_check=False)
    if not isinstance(tensor, nn.Parameter):
        return dealt
    parameter = nn.Parameter(dealt, requires_grad=tensor.requires_grad)
    parameter.__dict__.update(tensor.__dict__)
    return parameter


def read_local(model: nn.Module, mesh: DeviceMesh, summed: Iterable[str], rows: Iterable[str]) -> None:
    """Let every forward read the part that its rank holds: modules compute on plain tensors, and need not know.

    ``summed`` parameters are whole, but their gradients are parts. The bias of ``rows`` is left for after the sum.
    """
    in_parts, without_bias = set(summed), {f"{name}.bias" for name in rows}
    for prefix, module in list(model.named_modules()):
        members: dict[str, Any] = {}
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            path = f"{prefix}.{name}".lstrip(".")
            if not isinstance(tensor, DTensor):
                continue
            if path in without_bias:
                members[name] = _reader(name, mesh, torch.zeros_like if is_transposed(module) else _nothing)
            else:
                members[name] = _reader(
                    name, mesh, partial(branch, group=mesh.get_group()) if path in in_parts else _same
                )
        if isinstance(module, nn.RNNBase):
            members["_flat_weights"] = property(_flat_weights, lambda self, value: None)
        if members:
            base = type(module)
            module.__class__ = type(base.__name__, (base,), {"__module__": base.__module__, **members})


def _reader(name: str, mesh: DeviceMesh, change: Callable[[Tensor], Tensor | None]) -> property:
    def read(self: nn.Module) -> Tensor | None:
        tensor = self._parameters[name] if name in self._parameters else self._buffers[name]
        if not isinstance(tensor, DTensor) or tensor.device_mesh != mesh:
            return tensor  # dealt further by FSDP2, which asks for it so between two forwards
        return change(tensor.to_local())

    return property(read)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _nothing(tensor: Tensor) -> None:
    return None


def _flat_weights(self: Any) -> list[Tensor]:
    return [getattr(self, name) for name in self._flat_weights_names]


def count_less(modules: Iterable[nn.Module], parts: int) -> None:
    """Modules that count their features or groups in forward count those of one rank."""
    for module in modules:
        attribute = count_of(module)
        if attribute is not None:
            setattr(module, attribute, getattr(module, attribute) // parts)
