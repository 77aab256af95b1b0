"""Cut any model into consecutive stages that share its modules, under the names that they have in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import AccelError, ConfigError, Problem
from accel_cli.strategy import stage_costs
from accel_cli.strategy.stage_line import Line, form_of, how_again, straight
from accel_cli.strategy.stage_module import Stage, adopt
from accel_cli.strategy.stage_trace import NotStraight, attribute


def cut(
    model: nn.Module,
    example: Any,
    parts: int,
    *,
    where: str,
    blocks: Sequence[nn.Module] = (),
    names: Sequence[str] | None = None,
    costs: Callable[[fx.Graph, nn.Module], list[float]] = stage_costs.counted,
    frozen: bool = False,
    fewer: Callable[[int], str] | None = None,
) -> list[Stage]:
    """``parts`` stages, which one after the other compute ``model(example)``, for any number of samples.

    ``example`` is one tensor of two or more samples. The cuts lie before the modules of ``names``, or where the
    dearest part is cheapest by ``costs`` (``stage_costs.counted`` or ``measured``). ``blocks`` stay whole. What no
    forward uses comes into the first stage. ``frozen``: a stage need not learn anything. ``fewer``: what to type for
    so many stages. Raises ConfigError about ``where``, the user's ``key=value``, for a model that cannot be followed,
    has too few places to cut, or ties parameters across all of them.
    """
    if not isinstance(example, Tensor):
        why = f"stages hand on tensors; the model's input is a {type(example).__name__}"
        raise ConfigError(Problem(where, why, "try strategy=fsdp"))
    with undisturbed(model, example.device):
        try:
            line = straight(model, example, blocks, parts)
        except NotStraight as error:
            raise ConfigError(Problem(where, f"cannot cut this model: {error}", "try strategy=fsdp")) from error
        learned = _learned(line, frozen)
        if names is not None:
            positions = named(line, names, parts, where, learned)
        else:
            positions = balanced(line, parts, costs(line.graphs[True], line.model), learned, where, fewer)
    return build(line, positions)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model is in evaluation mode inside; afterwards modes, buffers and random state are what they were."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            model.eval()
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def balanced(
    line: Line,
    parts: int,
    costs: Sequence[float],
    learned: Sequence[int],
    where: str,
    fewer: Callable[[int], str] | None = None,
) -> list[int]:
    """Positions of the cuts whose dearest part is cheapest. Raises ConfigError where there are too few."""
    sent = {position: sum(n.meta["value"].nbytes for n in tensors) for position, tensors in line.crossing.items()}
    for most in range(parts, 0, -1):
        positions = stage_costs.cheapest(costs, sent, learned, most)
        if positions is not None and most == parts:
            return positions
        if positions is not None:
            break
    raise ConfigError(_too_few(line, parts, most, where, fewer))


def _learned(line: Line, frozen: bool) -> list[int]:
    """Of each node: numbers that training changes; with ``frozen`` those of all its parameters."""
    modules = [line.model.get_submodule(str(n.target)) if n.op == "call_module" else None for n in line.nodes]
    single = [attribute(line.model, str(n.target)) if n.op == "get_attr" else None for n in line.nodes]
    held = [list(m.parameters()) if m is not None else [t] for m, t in zip(modules, single, strict=True)]
    return [
        sum(t.numel() for t in tensors if isinstance(t, nn.Parameter) and (frozen or t.requires_grad))
        for tensors in held
    ]


def _too_few(line: Line, parts: int, most: int, where: str, fewer: Callable[[int], str] | None) -> Problem:
    if line.tied:
        why = f"{line.tied[0]} is used in two places, which would lie in two stages"
        return Problem(where, why, "try model.weight_tying=false, or strategy=fsdp")
    if not line.crossing:
        return Problem(where, "the model's forward has no place to cut: it calls one module only",
                       "try train.blocks=[...] with the modules that it is made of, or strategy=fsdp")  # fmt: skip
    why = f"the model can be cut into {most} stages that learn something, not into {parts}"
    return Problem(where, why, fewer(most) if fewer and most > 1 else "try strategy=ddp or strategy=fsdp")


def named(line: Line, names: Sequence[str], parts: int, where: str, learned: Sequence[int]) -> list[int]:
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
    borders = [0, *found, len(nodes)]
    for number, (start, end) in enumerate(zip(borders, borders[1:], strict=False), 1):
        if not any(learned[start:end]):
            why = f"stage {number} of {parts} would learn nothing: all that it holds is frozen"
            raise ConfigError(Problem(key, why, "try strategy.cut=null"))
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
        forms = [form_of(n, line.larger[n]) for n in given if isinstance(n, fx.Node)]
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
            known = how_again(source, incoming, line.larger)
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
