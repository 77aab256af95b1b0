"""Where a traced model can be cut, and what would pass there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from accel_cli.strategy import stage_trace
from accel_cli.strategy.stage_module import Form
from accel_cli.strategy.stage_trace import NotStraight, attribute


@dataclass(frozen=True)
class Line:
    """A traced model: its graphs in training and in evaluation, node by node the same, and where it can be cut."""

    model: nn.Module
    graphs: dict[bool, fx.Graph]
    larger: dict[fx.Node, Any]
    """Values of the training graph's nodes for one sample more than the example has."""
    crossing: dict[int, list[fx.Node]]
    """Position (a cut lies before that node) -> the tensors that pass it, for all that can be cut."""
    tied: list[str]
    """Parameters that are used more than once, which keep cuts away."""

    @property
    def nodes(self) -> list[fx.Node]:
        return list(self.graphs[True].nodes)


def straight(model: nn.Module, example: Tensor, blocks: Sequence[nn.Module], parts: int) -> Line:
    """Trace a model and find where it can be cut: into modules called by modules, as deep as the parts ask for.

    ``blocks`` stay whole. Raises NotStraight.
    """
    followed = stage_trace.opened(model, blocks)
    kept = {module for block in blocks for module in block.modules()}
    line = _line(model, example, followed)
    while len(line.crossing) < parts - 1:
        called = {model.get_submodule(str(n.target)) for n in line.nodes if n.op == "call_module"}
        large = [m for m in called - kept if any(True for _ in m.children())]
        if not large:
            break
        largest = max(large, key=lambda m: sum(p.numel() for p in m.parameters()))
        kept.add(largest)
        try:
            line = _line(model, example, followed | {largest})
        except NotStraight:
            continue
        followed |= {largest}
    return line


def _line(model: nn.Module, example: Tensor, followed: set[nn.Module]) -> Line:
    graphs = {mode: stage_trace.trace(model, example, followed, training=mode) for mode in (True, False)}
    calls = [[(node.op, node.target, node.name) for node in graph.nodes] for graph in graphs.values()]
    if calls[0] != calls[1]:
        raise NotStraight("its forward runs different modules under model.train() and model.eval()")
    output = graphs[True].output_node().args[0]
    if not isinstance(output, fx.Node):
        raise NotStraight(f"its forward returns a {type(output).__name__}, not a tensor")
    larger = _values(model, graphs[True], torch.cat([example, example[:1]]))
    crossing, tied = _crossings(model, graphs[True], larger)
    return Line(model, graphs, larger, crossing, tied)


@torch.no_grad()
def _values(model: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            values[node] = example
        elif node.op != "output":
            values[node] = stage_trace.run(node, model, values.__getitem__)
    return values


def _crossings(
    model: nn.Module, graph: fx.Graph, larger: dict[fx.Node, Any]
) -> tuple[dict[int, list[fx.Node]], list[str]]:
    nodes = list(graph.nodes)
    place = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((place[user] for user in node.users), default=-1) for node in nodes}
    uses = _parameter_uses(model, nodes)
    found = {}
    for position in range(1, len(nodes)):
        if nodes[position].op in ("placeholder", "get_attr", "output"):
            continue
        passing = [n for n in nodes[:position] if last_use[n] >= position and n.op != "get_attr"]
        tensors = [n for n in passing if isinstance(n.meta["value"], Tensor)]
        whole = not any(first < position <= last for first, last in uses.values())
        if whole and tensors and _can_pass(tensors, larger) and all(
            how_again(n, tensors, larger) is not None for n in passing if n not in tensors
        ):  # fmt: skip
            found[position] = tensors
    return found, [name for name, (first, last) in uses.items() if first < last]


def _parameter_uses(model: nn.Module, nodes: Sequence[fx.Node]) -> dict[str, tuple[int, int]]:
    """Parameter or buffer -> the first and the last node that use it."""
    names = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    uses: dict[str, tuple[int, int]] = {}
    for index, node in enumerate(nodes):
        if node.op == "call_module":
            module = model.get_submodule(str(node.target))
            held = [id(t) for t in (*module.parameters(), *module.buffers())]
            last = index
        elif node.op == "get_attr":
            held = [id(attribute(model, str(node.target)))]
            last = max((nodes.index(user) for user in node.users), default=index)
            index = min((nodes.index(user) for user in node.users), default=index)
        else:
            continue
        for name in (names[key] for key in held if key in names):
            first, before = uses.get(name, (index, last))
            uses[name] = min(first, index), max(before, last)
    return uses


def _can_pass(tensors: Sequence[fx.Node], larger: dict[fx.Node, Any]) -> bool:
    """Whether they are numbers that a gradient can come back for; a raw input is not sent on."""
    return all(n.op != "placeholder" and larger[n].is_floating_point() for n in tensors)


def how_again(
    node: fx.Node, tensors: Sequence[fx.Node], larger: dict[fx.Node, Any]
) -> tuple[fx.Node, int] | int | None:
    """How the next stage knows a plain number: itself, or (tensor, the dimension that it is the length of)."""
    value, other = node.meta["value"], larger[node]
    if not isinstance(value, int):
        return None
    if value == other:
        return value
    for tensor in tensors:
        for dimension, length in enumerate(tensor.meta["value"].shape):
            if (length, larger[tensor].shape[dimension]) == (value, other):
                return tensor, dimension
    return None


def form_of(node: fx.Node, larger: Tensor) -> Form:
    small = node.meta["value"]
    samples = _samples(node)
    slope = tuple(b - a for a, b in zip(small.shape, larger.shape, strict=True))
    base = tuple(a - s * samples for a, s in zip(small.shape, slope, strict=True))
    return Form(base, slope, small.dtype)


def _samples(node: fx.Node) -> int:
    first = next(iter(node.graph.nodes))
    return int(first.meta["value"].shape[0])
