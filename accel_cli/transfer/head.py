"""The head of a model: the module that makes its output, found by watching a forward pass."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.errors import ConfigError, Problem

FINETUNE = "transfer=finetune and transfer.freeze"


@dataclass(frozen=True)
class Head:
    """``views`` augmentations of each sample are kept of its input; ``where`` is the key that problems are told by."""

    name: str
    module: nn.Module
    views: int
    where: str
    always: bool = True
    """Whether its input is computed once even where it is drawn anew in each epoch."""
    otherwise: str = FINETUNE
    """What to type to do without."""

    def features(self, model: nn.Module, task: Any, batch: Any) -> Tensor:
        """What the head is given in a forward pass of the whole model, [n, ...]."""
        return self._watched(model, task, batch)[0]

    def check(self, model: nn.Module, task: Any, batch: Any, samples: int) -> None:
        """Raise ConfigError unless the head, given its input alone, makes the model's output."""
        features, output = self._watched(model, task, batch)
        if len(features) != samples:
            raise self._refusal(f"is given {list(features.shape)} for {samples} samples: not a row for each")
        again, wanted = tensor_of(self.module(features)), tensor_of(output)
        if again is None or wanted is None or again.shape != wanted.shape:
            raise self._refusal("does not make the model's output")
        near = 1e-5 if wanted.dtype == torch.float32 else 1e-2
        if float((again - wanted).abs().max()) > near * float(wanted.abs().max().clamp(min=1e-6)):
            raise self._refusal("does not make the model's output: something comes after it")
        self.alone(model)

    def alone(self, model: nn.Module) -> None:
        """Raise ConfigError where the head shares a parameter with the rest."""
        every = list(model.named_parameters(remove_duplicate=False))
        rest = {id(parameter) for name, parameter in every if not self._holds(name)}
        if shared := [name for name, parameter in every if self._holds(name) and id(parameter) in rest]:
            raise self._refusal(f"shares {shared[0]} with what is to be frozen")

    def freeze_the_rest(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if not self._holds(name):
                parameter.requires_grad_(False)

    def _holds(self, name: str) -> bool:
        return name.startswith(f"{self.name}.")

    def _watched(self, model: nn.Module, task: Any, batch: Any) -> tuple[Tensor, Any]:
        given: list[tuple[Any, Any]] = []
        outputs: list[Any] = []
        handles = [
            self.module.register_forward_pre_hook(lambda _, inputs, named: given.append((inputs, named)),
                                                  with_kwargs=True),
            model.register_forward_hook(lambda _, inputs, output: outputs.append(output)),
        ]  # fmt: skip
        try:
            task.forward(model, batch)
        finally:
            for handle in handles:
                handle.remove()
        if len(given) != 1 or len(outputs) != 1:
            raise self._refusal(f"is called {len(given)} times in a forward pass; once is wanted")
        inputs, named = given[0]
        if named or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            raise self._refusal("is given more than one tensor")
        return inputs[0], outputs[0]

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(Problem(self.where, f"{self.name} {why}", f"name another module, or try {self.otherwise}"))


def alone(
    asked: str, views: int, model: nn.Module, task: Any, batch: Any, samples: int, *, always: bool = True
) -> Head:
    """The head that ``asked`` names, proven, with all else frozen.

    Raises ConfigError where its input does not determine the model's output.
    """
    name = find(model, task, batch) if asked == "auto" else asked
    found = Head(name, named(model, name), views, f"transfer.head={asked}", always)
    found.check(model, task, batch, samples)
    found.freeze_the_rest(model)
    return found


def find(model: nn.Module, task: Any, batch: Any, otherwise: str = FINETUNE) -> str:
    """The name of the innermost module with weights whose output is the model's; ConfigError where there is none."""
    made: list[tuple[str, Any]] = []

    def watch(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: made.append((name, output))

    named = [(n, m) for n, m in model.named_modules() if n and next(m.parameters(), None) is not None]
    handles = [module.register_forward_hook(watch(name)) for name, module in named]
    whole: list[Any] = []
    handles.append(model.register_forward_hook(lambda module, inputs, output: whole.append(output)))
    try:
        task.forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    last = tensor_of(whole[-1]) if whole else None
    found = [name for name, output in made if last is not None and tensor_of(output) is last]
    if not found:
        why = "the model's output is not the output of one of its modules with weights"
        latest = f"transfer.head={made[-1][0]}, or " if made else ""
        raise ConfigError(Problem("transfer.head=auto", why, f"try {latest}{otherwise}"))
    return found[0]


def named(model: nn.Module, name: str) -> nn.Module:
    """The module of that name. Raises ConfigError with the nearest names where there is none, or none with weights."""
    modules = {n: m for n, m in model.named_modules() if n and next(m.parameters(), None) is not None}
    if name not in modules:
        near = (difflib.get_close_matches(name, modules, n=1, cutoff=0.4) or list(modules)[-1:] or ["auto"])[0]
        raise ConfigError(Problem(f"transfer.head={name}", "names no module with weights", f"try transfer.head={near}"))
    return modules[name]


def tensor_of(output: Any) -> Tensor | None:
    """A tensor, or the logits of an object or a dict."""
    if isinstance(output, Mapping):
        output = output.get("logits")
    output = getattr(output, "logits", output)
    return output if isinstance(output, Tensor) else None
