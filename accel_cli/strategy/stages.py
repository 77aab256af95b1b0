"""Cut any model into consecutive stages that share its modules, under the names that they have in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import AccelError, ConfigError, Problem
from accel_cli.strategy import stage_costs, stage_trace
from accel_cli.strategy.stage_trace import NotStraight, attribute

Balance = Literal["counted", "measured"]


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
        if self.is_last:
            return outputs
        ready = tuple(self._ready(o, form) for o, form in zip(outputs, self.forms, strict=True))
        return ready if len(ready) > 1 else ready[0]

    def _ready(self, output: Tensor, form: Form) -> Tensor:
        """As the next stage waits for it: autocast may have changed its type, and a transpose its layout."""
        output = output.to(form.dtype).contiguous()
        asked = self.detached and torch.is_grad_enabled() and not output.requires_grad
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
    elif last in holder._modules:
        for child, _ in [*source._modules[last].named_children()]:  # type: ignore[union-attr]
            adopt(holder, source, f"{last}.{child}")
    else:
        holder.add_module(last, source._modules[last])


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


def cut(
    model: nn.Module,
    example: Any,
    parts: int,
    *,
    where: str,
    blocks: Sequence[nn.Module] = (),
    names: Sequence[str] | None = None,
    costs: Callable[[fx.Graph, nn.Module], list[float]] = stage_costs.counted,
) -> list[Stage]:
    """``parts`` stages, which one after the other compute ``model(example)``, for any number of samples.

    ``example`` is one tensor of two or more samples. The cuts lie before the modules of ``names``, or where the
    dearest part is cheapest by ``costs`` (``stage_costs.counted`` or ``measured``). ``blocks`` stay whole. What no
    forward uses comes into the first stage. Raises ConfigError about ``where``, the user's ``key=value``, for a model
    that cannot be followed, has too few places to cut, or ties parameters across all of them.
    """
    if not isinstance(example, Tensor):
        why = f"stages hand on tensors; the model's input is a {type(example).__name__}"
        raise ConfigError(Problem(where, why, "try strategy=fsdp"))
    try:
        line = straight(model, example, blocks, parts)
    except NotStraight as error:
        raise ConfigError(Problem(where, f"cannot cut this model: {error}", "try strategy=fsdp")) from error
    positions = named(line, names, parts, where) if names is not None else balanced(line, parts, costs, where)
    return build(line, positions)


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
        raise NotStraight("its forward takes other ways in training than in evaluation")
    output = graphs[True].output_node().args[0]
    if not isinstance(output, fx.Node):
        raise NotStraight(f"its forward returns a {type(output).__name__}, not a tensor")
    larger = _values(model, graphs[True], torch.cat([example, example[:1]]))
    crossing, tied = _crossings(model, graphs[True], larger)
    return Line(model, graphs, larger, crossing, tied)


@torch.no_grad()
def _values(model: nn.Module, graph: fx.Graph, example: Tensor) -> dict[fx.Node, Any]:
    modes = {module: module.training for module in model.modules()}
    devices = [example.device] if example.device.type == "cuda" else []
    model.eval()
    values: dict[fx.Node, Any] = {}
    try:
        with torch.random.fork_rng(devices):
            for node in graph.nodes:
                if node.op == "placeholder":
                    values[node] = example
                elif node.op != "output":
                    values[node] = stage_trace.run(node, model, values.__getitem__)
    finally:
        for module, mode in modes.items():
            module.training = mode
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
            _again(n, tensors, larger) is not None for n in passing if n not in tensors
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


def _again(node: fx.Node, tensors: Sequence[fx.Node], larger: dict[fx.Node, Any]) -> tuple[fx.Node, int] | int | None:
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


def balanced(line: Line, parts: int, costs: Callable[[fx.Graph, nn.Module], list[float]], where: str) -> list[int]:
    """Positions of the cuts whose dearest part is cheapest. Raises ConfigError where there are too few."""
    each = {m: m.training for m in line.model.modules()}
    line.model.eval()
    try:
        of_nodes = costs(line.graphs[True], line.model)
    finally:
        for module, mode in each.items():
            module.training = mode
    sent = {position: sum(n.meta["value"].nbytes for n in tensors) for position, tensors in line.crossing.items()}
    learned = _learned(line)
    for fewer in range(parts, 0, -1):
        positions = stage_costs.cheapest(of_nodes, sent, learned, fewer)
        if positions is not None and fewer == parts:
            return positions
        if positions is not None:
            break
    raise ConfigError(_too_few(line, parts, fewer, where))


def _learned(line: Line) -> list[int]:
    """Of each node: numbers that training changes."""
    modules = [line.model.get_submodule(str(n.target)) if n.op == "call_module" else None for n in line.nodes]
    single = [attribute(line.model, str(n.target)) if n.op == "get_attr" else None for n in line.nodes]
    held = [list(m.parameters()) if m is not None else [t] for m, t in zip(modules, single, strict=True)]
    return [sum(t.numel() for t in tensors if t is not None and t.requires_grad) for tensors in held]


def _too_few(line: Line, parts: int, most: int, where: str) -> Problem:
    if line.tied:
        why = f"{line.tied[0]} is used in two places, which would lie in two stages"
        return Problem(where, why, "try model.weight_tying=false, or strategy=fsdp")
    if not line.crossing:
        return Problem(where, "the model's forward has no place to cut: it calls one module only",
                       "try train.blocks=[...] with the modules that it is made of, or strategy=fsdp")  # fmt: skip
    why = f"the model can be cut into {most} stages that learn something, not into {parts}"
    return Problem(where, why, f"try {most} stages" if most > 1 else "try strategy=ddp or strategy=fsdp")


def named(line: Line, names: Sequence[str], parts: int, where: str) -> list[int]:
    """Positions before the first call of each of the modules. Raises ConfigError, with what to type."""
    key = f"strategy.cut=[{','.join(names)}]"
    if len(names) != parts - 1:
        why = f"{parts} stages have {parts - 1} cuts"
        raise ConfigError(Problem(key, why, f"name the first module of each of the last {parts - 1} stages"))
    nodes, found = line.nodes, []
    calls = {str(n.target): i for i, n in reversed([*enumerate(nodes)]) if n.op == "call_module"}
    usable = [name for name, index in calls.items() if index in line.crossing]
    for name in names:
        inside = [i for n, i in calls.items() if n == name or n.startswith(f"{name}.")]
        if not inside:
            near = did_you_mean(nearest(name, calls)) or f"it calls {', '.join(usable)}"
            raise ConfigError(Problem(key, f"the model's forward calls no {name}", near))
        position = min(inside)
        if position not in line.crossing:
            why = f"the model cannot be cut before {name}: more than plain tensors, or a tied weight, would cross"
            raise ConfigError(Problem(key, why, f"try one of {', '.join(usable)}"))
        found.append(position)
    if sorted(set(found)) != found:
        raise ConfigError(Problem(key, "the cuts are not in the order of forward", "name them in order, each once"))
    return found


def build(line: Line, positions: Sequence[int]) -> list[Stage]:
    """The stages between the positions."""
    nodes = line.nodes
    borders = [0, *positions, len(nodes)]
    stages = []
    for start, end in zip(borders, borders[1:], strict=False):
        is_last = end == len(nodes)
        graphs = {mode: _part(list(graph.nodes), start, end, line) for mode, graph in line.graphs.items()}
        given = [line.graphs[True].output_node().args[0]] if is_last else line.crossing[end]
        forms = [_form(n, line.larger[n]) for n in given if isinstance(n, fx.Node)]
        stages.append(Stage(line.model, graphs, forms, is_last=is_last))
    used = {id(t) for stage in stages for t in (*stage.parameters(), *stage.buffers())}
    for name, tensor in [*line.model.named_parameters(), *line.model.named_buffers()]:
        if id(tensor) not in used:
            adopt(stages[0], line.model, name)
    return stages


def _part(nodes: list[fx.Node], start: int, end: int, line: Line) -> fx.Graph:
    """Nodes ``start`` to ``end`` as a graph of their own; nodes of both modes go by the same names."""
    by_name = {node.name: node for node in nodes}
    graph, copies = fx.Graph(), {}
    if start:
        incoming = line.crossing[start]
        for node in incoming:
            copies[by_name[node.name]] = graph.placeholder(node.name)
    needed = {n for node in nodes[start:end] for n in node.all_input_nodes}
    for node in nodes[:start]:
        if node not in needed or node in copies:
            continue
        if node.op == "get_attr":
            copies[node] = graph.node_copy(node)
        else:
            source = next(n for n in line.nodes if n.name == node.name)
            known = _again(source, incoming, line.larger)
            assert known is not None
            if isinstance(known, int):
                copies[node] = known  # type: ignore[assignment]
            else:
                copies[node] = graph.call_method("size", (copies[by_name[known[0].name]], known[1]))
    for node in nodes[start:end]:
        if node.op == "output":
            graph.output(fx.node.map_arg(node.args[0], copies.__getitem__))
            return graph
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[by_name[n.name]] for n in line.crossing[end]))
    return graph


def _form(node: fx.Node, larger: Tensor) -> Form:
    small = node.meta["value"]
    samples = _samples(node)
    slope = tuple(b - a for a, b in zip(small.shape, larger.shape, strict=True))
    base = tuple(a - s * samples for a, s in zip(small.shape, slope, strict=True))
    return Form(base, slope, small.dtype)


def _samples(node: fx.Node) -> int:
    first = next(iter(node.graph.nodes))
    return int(first.meta["value"].shape[0])


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


class _Asked(Exception):
    """A task has called the model."""


def inputs_of(task: Any, batch: Any) -> Any:
    """What the task would give to the model: a tensor, or else all that it would give."""

    def model(*inputs: Any, **named: Any) -> Any:
        raise _Asked(inputs[0] if len(inputs) == 1 and not named else named or inputs)

    try:
        task.forward(model, batch)
    except _Asked as asked:
        return asked.args[0]
    raise AccelError("the task computed a loss without the model", "try strategy=fsdp")
