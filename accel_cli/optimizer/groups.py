"""Sort a model's parameters into groups of one weight decay and one rate."""

from __future__ import annotations

from typing import Any

from torch import nn

from accel_cli.errors import ConfigError, Problem
from accel_cli.optimizer.hidden import hidden_matrices
from accel_cli.optimizer.patterns import group_of, plain_name


def parameter_groups(model: nn.Module, config: Any, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Groups for a torch optimizer, in the order of the model; frozen parameters are left out.

    Each has ``params``, ``names``, ``weight_decay`` and ``rate``, the multiplier on the learning rate; where the
    optimizer is muon also ``matrix``: whether these are hidden weight matrices. ``rates`` is by parameter
    name, without the names that compiling or wrapping adds; a group's own ``rate`` multiplies it. Raises ConfigError
    if nothing can be trained.
    """
    model = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    matrices = hidden_matrices(model) if config.option == "muon" else None
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for wrapped_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        name = plain_name(wrapped_name)
        asked = group_of(name, config.groups)
        decay = config.weight_decay if config.decay_norms_and_biases or parameter.dim() >= 2 else 0.0
        rate = rates.get(name, 1.0)
        if asked is not None:
            decay = decay if asked.weight_decay is None else asked.weight_decay
            rate = rate if asked.rate is None else rate * asked.rate
        group: dict[str, Any] = {"weight_decay": decay, "rate": rate}
        if matrices is not None:
            group["matrix"] = id(parameter) in matrices
        # Kernels over many tensors refuse a mixture of plain and sharded ones, of two meshes or devices.
        mesh = getattr(parameter, "device_mesh", None)
        group = groups.setdefault((mesh, parameter.device, *group.values()), {"params": [], "names": [], **group})
        group["params"].append(parameter)
        group["names"].append(name)
    if not groups:
        raise ConfigError(
            Problem("optimizer", "nothing to train: every parameter is frozen", "unfreeze some, see transfer.*")
        )
    return list(groups.values())
