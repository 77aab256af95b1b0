"""Which layer reads what another gives, seen in one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

CUTS = {"relu": (0.0, None), "relu_": (0.0, None), "relu6": (0.0, 6.0)}
"""Operations that only cut their input to a range which begins at zero."""
PASSES = {
    "max_pool1d", "max_pool2d", "flatten", "dropout", "dropout1d", "dropout2d", "dropout_", "feature_dropout",
    "contiguous", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "identity",
}  # fmt: skip
"""Operations that give numbers of their input and no others, in evaluation mode."""
SAME = {"dropout", "dropout1d", "dropout2d", "feature_dropout"}
"""Those that give back their very input there."""


@dataclass(eq=False)
class Value:
    """A tensor of the forward."""

    tensor: Tensor
    layer: str | None = None
    """Whose output it is."""
    operation: str | None = None
    """What else has made it."""
    of: Value | None = None
    """The only tensor that an operation read."""
    within: str | None = None
    """The module that does nothing but this operation."""
    readers: list[str | Value] = field(default_factory=list)
    """Names of layers, and what operations made of it; "": whoever called the model."""


class Flow(TorchFunctionMode):
    """Layers are taken whole; between them every operation is seen, wherever in the model's code it stands."""

    def __init__(self, model: nn.Module, is_layer: Callable[[nn.Module], bool]) -> None:
        super().__init__()
        self.calls: dict[str, int] = {}
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        """Of each layer's last call."""
        self._values: dict[int, Value] = {}
        self._alive: list[Tensor] = []
        self._inside = 0
        self._within: str | None = None
        self._layers = {name: module for name, module in model.named_modules() if is_layer(module)}
        self._cuts = {name: module for name, module in model.named_modules() if type(module) in (nn.ReLU, nn.ReLU6)}

    def watch(self, forward: Callable[[], Any]) -> Flow:
        """Run ``forward`` and look; the model's outputs count as read by something else."""
        hooks = []
        for name, module in self._layers.items():
            hooks.append(module.register_forward_pre_hook(lambda _, inputs, name=name: self._enter(name, inputs)))
            hooks.append(module.register_forward_hook(lambda *seen, name=name: self._leave(name, seen[-1])))
        for name, module in self._cuts.items():
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: self._stand(name)))
            hooks.append(module.register_forward_hook(lambda *_: self._stand(None)))
        try:
            with self:
                output = forward()
        finally:
            for hook in hooks:
                hook.remove()
        for tensor in tensors(output):
            self.value(tensor).readers.append("")
        return self

    def value(self, tensor: Tensor) -> Value:
        found = self._values.get(id(tensor))
        return self._make(tensor) if found is None else found

    def _make(self, tensor: Tensor, **facts: Any) -> Value:
        # Kept alive: another tensor at the same address would be taken for it.
        self._alive.append(tensor)
        self._values[id(tensor)] = made = Value(tensor, **facts)
        return made

    def _stand(self, name: str | None) -> None:
        self._within = name
        if name is not None:
            self.calls[name] = self.calls.get(name, 0) + 1

    def _enter(self, name: str, inputs: Any) -> None:
        self._inside += 1
        self.calls[name] = self.calls.get(name, 0) + 1
        for tensor in tensors(inputs):
            self.inputs[name] = value = self.value(tensor)
            value.readers.append(name)

    def _leave(self, name: str, output: Any) -> None:
        self._inside -= 1
        for tensor in tensors(output):
            self.outputs[name] = self._make(tensor, layer=name)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._inside:
            return output
        name = getattr(func, "__name__", "")
        made = list(tensors(output))
        read = {id(tensor): self.value(tensor) for tensor in tensors((args, kwargs))} if made else {}
        for tensor in made:
            if name in SAME and id(tensor) in read:
                continue
            only = next(iter(read.values())) if len(read) == 1 else None
            result = self._make(tensor, operation=name, of=only, within=self._within)
            for value in read.values():
                value.readers.append(result)
        return output


def tensors(held: Any) -> Iterable[Tensor]:
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from tensors(value)
    elif isinstance(held, (tuple, list)):
        for value in held:
            yield from tensors(value)


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm)
