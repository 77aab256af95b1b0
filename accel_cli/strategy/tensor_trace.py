"""Where the output of each layer goes, read off the autograd graph of one forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from accel_cli.strategy.tensor_layers import Kind, kind_of

Forward = Callable[[nn.Module], Any]
"""The forward pass of a model on an example, to its output."""
OUTPUT = "the model's output"


@dataclass
class Layer:
    """A layer that could be cut, and its one call; the tensors are those of the forward's time."""

    name: str
    module: nn.Module
    kind: Kind
    source: Tensor
    """What it was called with, maybe written to since; ``input`` is a copy."""
    input: Tensor
    output: Tensor
    calls: int = 1

    def size(self, dimension: int) -> int:
        return self.module.get_parameter("weight").shape[dimension]

    @property
    def outputs(self) -> int:
        return self.size(self.kind.outputs)

    @property
    def inputs(self) -> int:
        return self.size(self.kind.inputs)


@dataclass(frozen=True)
class Sources:
    """What a layer's input was made of since the layers before it."""

    layers: frozenset[str]
    clean: bool
    """Nothing else went into it that was computed, whose gradient would be a part only."""
    uses: frozenset[tuple[str, Any]]
    """(parameter, the node that read it) on the way, such as of a norm."""


@dataclass
class Trace:
    layers: dict[str, Layer]
    parameters: dict[str, Tensor]
    """By name, as the forward used them: matrices are drawn anew, because fresh ones hide mistakes (an attention
    that starts uniform is the same for any cut into heads)."""
    results: list[Tensor]
    """The tensors that the model put out."""
    sources: dict[str, Sources] = field(default_factory=dict)
    consumers: dict[str, set[str]] = field(default_factory=dict)
    uses: dict[str, set[Any]] = field(default_factory=dict)
    """Parameter -> every node that read it."""


def trace(model: nn.Module, forward: Forward) -> Trace:
    """Run ``forward`` in evaluation mode, with every parameter as if it was trained. The model stays as it was."""
    layers: dict[str, Layer] = {}
    nodes: dict[Any, str] = {}
    entries: dict[str, Any] = {}
    named = {name: kind for name, module in model.named_modules() if (kind := kind_of(module)) is not None}
    parameters = drawn(model, named)

    def record(name: str, kind: Kind) -> Any:
        def hook(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if name in layers or not arguments:
                if name in layers:
                    layers[name].calls += 1
            else:
                x = arguments[0]
                layers[name] = Layer(name, module, kind, x, x.detach().clone(), output.detach().clone())
                entries[name] = x.grad_fn
            if output.grad_fn is not None:
                nodes[output.grad_fn] = name

        return hook

    handles = [model.get_submodule(name).register_forward_hook(record(name, kind)) for name, kind in named.items()]
    try:
        with torch.enable_grad(), still(model):
            result = call(model, forward, parameters | copied(model))
    finally:
        for handle in handles:
            handle.remove()
    leaves = tensors_of(result)
    found = Trace(layers, parameters, [leaf.detach() for leaf in leaves])
    graph = _Graph(nodes, {id(tensor): name for name, tensor in parameters.items()})
    ends = [leaf.grad_fn for leaf in leaves]
    for name, entry in entries.items():
        found.sources[name] = graph.sources(entry)
    found.uses = graph.uses(ends)
    for end in ends:
        for name in graph.reach(end):
            found.consumers.setdefault(name, set()).add(OUTPUT)
    for consumer, sources in found.sources.items():
        for name in sources.layers:
            found.consumers.setdefault(name, set()).add(consumer)
    return found


def drawn(model: nn.Module, named: Mapping[str, Kind]) -> dict[str, Tensor]:
    """Every parameter, as leaves of their own; the weights and biases of layers are drawn, at a scale that keeps the
    size of activations."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        owner, _, own = name.rpartition(".")
        value = parameter.detach()
        if owner in named and own in ("weight", "bias"):
            spread = (value.numel() / value.shape[named[owner].outputs]) ** -0.5 if own == "weight" else 0.1
            value = (torch.randn(value.shape, generator=generator) * spread).to(value)
        found[name] = value.requires_grad_() if value.is_floating_point() else value
    return found


def copied(model: nn.Module) -> dict[str, Tensor]:
    """The buffers, for a forward that may write to them."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def call(model: nn.Module, forward: Forward, tensors: Mapping[str, Tensor]) -> Any:
    """What ``forward`` returns on the model with other parameters and buffers."""
    bound = _Bound(model, forward)
    return functional_call(bound, {f"model.{name}": tensor for name, tensor in tensors.items()}, ())


def tensors_of(result: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]


class _Bound(nn.Module):
    def __init__(self, model: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.model = model
        self.run = forward

    def forward(self) -> Any:
        return self.run(self.model)


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and draws that neither differ between two forwards nor disturb the run's own."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    model.eval()
    try:
        with torch.random.fork_rng(list(devices)):
            torch.manual_seed(0)
            yield
    finally:
        for module, training in modes:
            module.training = training


class _Graph:
    """The autograd graph, cut where layers put out."""

    def __init__(self, layers: dict[Any, str], parameters: dict[int, str]) -> None:
        self.layers = layers
        self.parameters = parameters
        self._reach: dict[Any, frozenset[str]] = {}

    def reach(self, node: Any) -> frozenset[str]:
        """The layers whose outputs went into it, the nearest on every path."""
        stack = [node]
        while stack:
            top = stack[-1]
            if top is None or top in self._reach:
                stack.pop()
            elif top in self.layers:
                self._reach[top] = frozenset((self.layers[top],))
            else:
                before = [n for n, _ in top.next_functions if n is not None]
                missing = [n for n in before if n not in self._reach]
                if missing:
                    stack.extend(missing)
                else:
                    self._reach[top] = frozenset().union(*(self._reach[n] for n in before))
        return self._reach[node] if node is not None else frozenset()

    def sources(self, node: Any) -> Sources:
        clean, uses, seen = True, set(), set()
        stack = [node] if self.reach(node) else []
        while stack:
            top = stack.pop()
            if top in seen or top in self.layers:
                continue
            seen.add(top)
            for before, _ in top.next_functions:
                if before is None:
                    continue
                if self.reach(before):
                    stack.append(before)
                    continue
                reader = top
                while not hasattr(before, "variable"):
                    further = [n for n, _ in before.next_functions if n is not None]
                    if len(further) != 1:  # computed, from several values or from none that is trained
                        clean = clean and not further
                        break
                    reader, before = before, further[0]
                else:
                    uses.add((self.parameters.get(id(before.variable), ""), reader))
        return Sources(self.reach(node), clean, frozenset(uses))

    def uses(self, ends: list[Any]) -> dict[str, set[Any]]:
        """Parameter -> the nodes that read it."""
        found: dict[str, set[Any]] = {}
        stack, seen = [end for end in ends if end is not None], set()
        while stack:
            top = stack.pop()
            if top in seen:
                continue
            seen.add(top)
            for before, _ in top.next_functions:
                if hasattr(before, "variable"):
                    found.setdefault(self.parameters.get(id(before.variable), ""), set()).add(top)
                elif before is not None:
                    stack.append(before)
        return found
