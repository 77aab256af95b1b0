"""What each call of a traced model costs, counted or measured; and the cut whose dearest part is cheapest."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from accel_cli.strategy.stage_trace import run

TIMES = 3
"""Measurements of a call, of which the fastest counts."""


def counted(graph: fx.Graph, model: nn.Module) -> list[float]:
    """Of each node: floating-point operations forward on the example, and one for every parameter."""
    costs = []
    with torch.no_grad():
        for node in graph.nodes:
            if node.op in ("placeholder", "output", "get_attr"):
                costs.append(0.0)
                continue
            with FlopCounterMode(display=False) as counter:
                run(node, model, _copy)
            held = model.get_submodule(str(node.target)).parameters() if node.op == "call_module" else ()
            costs.append(float(counter.get_total_flops() + sum(p.numel() for p in held)))
    return costs


def measured(graph: fx.Graph, model: nn.Module) -> list[float]:
    """Of each node: seconds forward and backward on the example, in evaluation mode; no gradient is kept."""
    return [_seconds(node, model) for node in graph.nodes]


def _seconds(node: fx.Node, model: nn.Module) -> float:
    if node.op in ("placeholder", "output", "get_attr"):
        return 0.0
    owner = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    learned = [p for p in owner.parameters() if p.requires_grad] if owner is not None else []
    best = math.inf
    for _ in range(TIMES):
        leaves: list[Tensor] = list(learned)

        def fresh(source: fx.Node, leaves: list[Tensor] = leaves) -> Any:
            value = _copy(source)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            leaves.append(value.requires_grad_())
            return value.clone()

        _wait(model)
        began = time.perf_counter()
        with torch.enable_grad():
            result = run(node, model, fresh)
            if isinstance(result, Tensor) and result.requires_grad:
                torch.autograd.grad(result.sum(), leaves, allow_unused=True)
        _wait(model)
        best = min(best, time.perf_counter() - began)
    return best


def _copy(node: fx.Node) -> Any:
    """Its value on the example; a copy, for what works in place."""
    value = node.meta["value"]
    return value.detach().clone() if isinstance(value, Tensor) else value


def _wait(model: nn.Module) -> None:
    if any(p.device.type == "cuda" for p in model.parameters()):
        torch.cuda.synchronize()


def cheapest(costs: Sequence[float], sent: dict[int, int], learned: Sequence[int], parts: int) -> list[int] | None:
    """The positions of ``parts`` - 1 cuts whose dearest part is cheapest; None where there are no such.

    A cut lies before the node of its number; ``sent`` are the places where one can lie, and the bytes that cross
    there. Every part has nodes that ``learned`` counts something for. Of equals the most even one, then the one that
    sends least. Dynamic programming, as Narayanan et al. 2019 (PipeDream, arXiv 1806.03377) balance stages.
    """
    dear, wise = list(accumulate(costs, initial=0.0)), list(accumulate(learned, initial=0))
    ends = [*sorted(sent), len(costs)]
    best: dict[int, tuple[float, float, int, list[int]]] = {0: (0.0, 0.0, 0, [])}
    for part in range(parts):
        found = {}
        for end in ends if part < parts - 1 else ends[-1:]:
            options = []
            for start, (most, squares, bytes_sent, cuts) in best.items():
                cost = dear[end] - dear[start]
                if start < end and wise[end] > wise[start]:
                    options.append((max(most, cost), squares + cost**2, bytes_sent + sent.get(end, 0), [*cuts, end]))
            if options:
                found[end] = min(options)
        best = found
    return best[len(costs)][3][:-1] if best else None
