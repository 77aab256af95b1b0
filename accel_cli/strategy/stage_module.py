"""A stage: modules of a whole model under their names there, and the part of its forward that calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Form:
    """A tensor that passes from stage to stage: each side is ``base + slope x samples`` long."""

    base: tuple[int, ...]
    slope: tuple[int, ...]
    dtype: torch.dtype

    def shape(self, samples: int) -> tuple[int, ...]:
        return tuple(base + slope * samples for base, slope in zip(self.base, self.slope, strict=True))

    def bytes(self, samples: int) -> int:
        return torch.Size(self.shape(samples)).numel() * self.dtype.itemsize


class Stage(nn.Module):
    """One stage: inputs are what the stage before it gives, outputs what the next one takes; tensors, in order.

    It holds those modules of the whole model that it calls, under their names, shared and not copied. ``surround``
    makes the context that each forward runs in. ``detached``: a result that needs no gradient asks for one all the
    same, so that a next stage can always send one.
    """

    def __init__(self, model: nn.Module, graphs: dict[bool, fx.Graph], forms: Sequence[Form], *, is_last: bool):
        super().__init__()
        self.forms = list(forms)
        self.is_last = is_last
        self.detached = False
        self.surround: Callable[[], AbstractContextManager[Any]] = nullcontext
        for graph in graphs.values():
            for node in graph.nodes:
                if node.op in ("call_module", "get_attr"):
                    adopt(self, model, str(node.target))
        self._forwards = {mode: type(fx.GraphModule(self, graph)).forward for mode, graph in graphs.items()}
        self.training = model.training

    def forward(self, *inputs: Tensor) -> Any:
        with self.surround():
            outputs = self._forwards[self.training](self, *inputs)
        given = (outputs,) if self.is_last else outputs
        ready = tuple(self._ready(o, form) for o, form in zip(given, self.forms, strict=True))
        return ready if len(ready) > 1 else ready[0]

    def _ready(self, output: Tensor, form: Form) -> Tensor:
        """As the next stage waits for it: autocast may have changed its type, and a transpose its layout."""
        output = output.to(form.dtype).contiguous()
        asked = self.detached and not self.is_last and torch.is_grad_enabled() and not output.requires_grad
        return output.detach().requires_grad_() if asked else output


def adopt(holder: nn.Module, model: nn.Module, name: str) -> None:
    """Give ``holder`` a module, parameter or buffer of ``model`` under its name there."""
    *path, last = name.split(".")
    source = model
    for part in path:
        source = getattr(source, part)
        if part not in holder._modules:
            holder.add_module(part, nn.Module())
        holder = getattr(holder, part)
        holder.training = source.training
    if last in source._parameters:
        holder.register_parameter(last, source._parameters[last])
    elif last in source._buffers:
        holder.register_buffer(last, source._buffers[last], last not in source._non_persistent_buffers_set)
    else:
        # In place of one that stood for it, because a single tensor of it was asked for before.
        holder.add_module(last, source._modules[last])


class Held(nn.Module):
    """What several stages hold, under the names of the whole model."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self._stages = tuple(stages)
        self.training = stages[0].training
        self.refresh()

    def refresh(self) -> None:
        """Take over the single parameters that something has replaced in the stages."""
        for stage in self._stages:
            for name in _leaves(stage):
                adopt(self, stage, name)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        for stage in self._stages:
            stage.compile(*args, **kwargs)

    def train(self, mode: bool = True) -> Held:
        for stage in self._stages:
            stage.training = mode
        super().train(mode)
        return self


def merged(stages: Sequence[Stage]) -> nn.Module:
    """One module that holds what all of them hold, under the same names; a single stage is itself."""
    return stages[0] if len(stages) == 1 else Held(stages)


def _leaves(module: nn.Module) -> Iterator[str]:
    """Names of what ``adopt`` has put there: modules of the model, and single tensors."""
    for name, child in module.named_children():
        if type(child) is nn.Module:
            yield from (f"{name}.{inner}" for inner in _leaves(child))
        else:
            yield name
    for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
        yield name
