"""State: a training's tensors and plain values by name, out of the live objects and back into them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from accel_cli.engine.training import Whole
from accel_cli.errors import CheckpointError
from accel_cli.optimizer.base import laid_out_as

FIT = "use the run's own run.yaml"


Part = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(a whole tensor, a live one) -> what of it this rank holds, laid out as the live one: ``Strategy.scatter``."""


def check_fit(whole: Whole, tensors: dict[str, torch.Tensor]) -> None:
    """Raise CheckpointError where names, shapes or types differ: never a silent cast or skip."""
    found = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    wrong = [name for name in {**whole.shapes, **found} if whole.shapes.get(name) != found.get(name)]
    if wrong:
        raise CheckpointError(f"the checkpoint does not fit this model: {', '.join(sorted(wrong)[:5])}", FIT)


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor], part: Part) -> None:
    """Copy a whole model's tensors in by name, as far as ``model`` holds them."""
    model.load_state_dict({name: part(tensors[name], value) for name, value in model.state_dict().items()})


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(live tensors, plain values) of the optimizer's state, by parameter name: ``<parameter>/<entry>``."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if is_traceable_wrapper_subclass(value) and not hasattr(value, "placements"):  # quantised
                parts = value.__tensor_flatten__()[0]
                tensors |= {f"{name}/{entry}.{part}": getattr(value, part) for part in parts}
            elif isinstance(value, torch.Tensor):
                tensors[f"{name}/{entry}"] = value
            else:
                values[f"{name}/{entry}"] = value
    return tensors, values


def load_optimizer(
    optimizer: Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor], values: dict[str, Any], part_of: Part
) -> None:
    """The inverse of ``optimizer_tensors``, as far as ``model`` holds the parameters.

    Entries go to the device that the optimizer would have put them on.
    """
    parameters = dict(model.named_parameters())
    for part in getattr(optimizer, "parts", [optimizer]):
        owned = {id(p) for group in part.param_groups for p in group["params"]}
        for key, value in {**tensors, **values}.items():
            name, _, entry = key.rpartition("/")
            parameter = parameters.get(name)
            if parameter is None or id(parameter) not in owned:
                continue
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                if value.shape == parameter.shape:
                    value = laid_out_as(parameter, part_of(value, parameter))
                else:
                    value = value.to(parameter.device)
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
