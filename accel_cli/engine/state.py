"""State: a training's tensors and plain values by name, out of the live objects and back into them."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch
from torch import nn
from torch.optim import Optimizer

from accel_cli.errors import CheckpointError
from accel_cli.optimizer.base import laid_out_as

FIT = "use the run's own run.yaml"


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy weights in by name. Raises CheckpointError where names or shapes differ: never a silent cast or skip."""
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) + sorted(
        name for name in set(own) & set(tensors)
        if own[name].shape != tensors[name].shape or own[name].dtype != tensors[name].dtype
    )  # fmt: skip
    if wrong:
        raise CheckpointError(f"the checkpoint does not fit this model: {', '.join(wrong[:5])}", FIT)
    model.load_state_dict(tensors)


def own_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the host, contiguous, none sharing memory with another (tied weights): as safetensors wants them."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, plain values) of the optimizer's state, by parameter name: ``<parameter>/<entry>``."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{entry}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                values[f"{name}/{entry}"] = value
    return tensors, values


def load_optimizer(
    optimizer: Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor], values: dict[str, Any]
) -> None:
    """The inverse of ``optimizer_tensors``: entries go to the device that the optimizer would have put them on."""
    parameters = dict(model.named_parameters())
    for part in getattr(optimizer, "parts", [optimizer]):
        owned = {id(p) for group in part.param_groups for p in group["params"]}
        for key, value in {**tensors, **values}.items():
            name, _, entry = key.rpartition("/")
            if name not in parameters:
                raise CheckpointError(f"the checkpoint's optimizer knows {name}, this model does not", FIT)
            parameter = parameters[name]
            if id(parameter) not in owned:
                continue
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                value = laid_out_as(parameter, value) if value.shape == parameter.shape else value.to(parameter.device)
            elif isinstance(value, torch.Tensor):
                on_device = part.defaults.get("fused") or part.defaults.get("capturable")
                value = value.to(parameter.device if on_device else "cpu", copy=True)
            part.state[parameter][entry] = value


def generator_state() -> dict[str, Any]:
    """Python's and numpy's random state, as JSON. Torch's follows from the step."""
    kind, keys, position, has_gauss, gauss = numpy.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(kind), numpy.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
    }


def load_generator_state(state: dict[str, Any]) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss))
