"""Matrices cut over ranks that compute one batch together: tensor parallelism on any model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_map_only

from accel_cli.errors import ConfigError, Problem
from accel_cli.strategy import tensor_cut
from accel_cli.strategy.tensor_moves import WHOLE, Branch
from accel_cli.strategy.tensor_plan import CONFIGURATION, MODEL, Plan, expand, make
from accel_cli.strategy.tensor_proof import cuts, narrowed, same
from accel_cli.strategy.tensor_trace import Forward, Trace, still, tensors_of, trace


class TensorParallel:
    """The ``tensor`` dimension of a mesh (Shoeybi et al. 2019, arXiv 1909.08053).

    Its ranks draw alike: dropout of what is whole must be the same on all of them. So dropout of what is cut (the
    heads of an attention, the slices of a sequence) repeats one rank's pattern on every rank.
    """

    def __init__(self, config: Any, mesh: DeviceMesh, device: torch.device) -> None:
        self.config, self.mesh, self.device = config, mesh, device

    def place(
        self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any
    ) -> tuple[nn.Module, list[str]]:
        """The model itself, cut in place, and lines that say what was cut and what not."""
        there = tree_map_only(Tensor, lambda value: value.to(self.device), example)
        return model, parallelize(
            model,
            self.mesh,
            self.config,
            lambda whole: task.forward(whole, example),
            lambda cut: task.forward(cut, there),
            self.device,
        )

    @staticmethod
    def check(config: Any, parts: int, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any) -> None:
        """Raise ConfigError where ``place`` would before it cuts."""
        planned(model, config, parts, lambda whole: task.forward(whole, example))


def parallelize(
    model: nn.Module, mesh: DeviceMesh, config: Any, forward: Forward, forward_there: Forward, device: torch.device
) -> list[str]:
    """Cut a whole model over a 1-D mesh, in place; every rank calls it with the same weights.

    ``forward`` runs the model on an example where it is, ``forward_there`` on the same on ``device``, where its parts
    go. Returns lines for the user. Raises ConfigError, on every rank alike, where nothing can be cut, where the
    configuration's own plan cannot be followed, and where the cut model's output is not the whole model's.
    """
    expected = output(model, forward)
    found, plan, sequence = planned(model, config, mesh.size(), forward)
    apply(model, mesh, found, plan, sequence, device)
    verify(model, mesh, forward_there, expected, config.option)
    return lines(found, plan, mesh.size())


def planned(model: nn.Module, config: Any, parts: int, forward: Forward) -> tuple[Trace, Plan, dict[str, str]]:
    """What is to be cut, and how the sequence lies; the model stays as it is. Raises ConfigError where nothing can."""
    found = trace(model, forward)
    plan = make(model, found, config.plan, parts, forward)
    if plan.source == CONFIGURATION and plan.left:
        raise ConfigError(
            [Problem(f"strategy.plan.{n}", why, "try strategy.plan=auto") for n, why in plan.left.items()]
        )
    if not plan.layers:
        raise ConfigError(nothing(model, found, config, parts, forward, plan))
    return found, plan, sequence_styles(model, plan) if config.sequence_parallel else {}


def apply(
    model: nn.Module, mesh: DeviceMesh, found: Trace, plan: Plan, sequence: dict[str, str], device: torch.device
) -> None:
    """Carry out a plan; ``sequence`` is module name -> style, empty where the sequence stays whole."""
    modules = dict(model.named_modules())
    features = {name: layer.kind.features for name, layer in found.layers.items()}
    rows = [name for p in plan.pairs for name in p.rows]
    summed = [name for p in plan.pairs for name in p.summed]
    for name, style in sequence.items():
        if style in ("sequence", "whole"):
            summed += [f"{name}.{own}" for own, _ in modules[name].named_parameters(recurse=False)]
    tensor_cut.deal(model, mesh, dict(cuts(model, plan.parts, found)), device)
    tensor_cut.read_local(model, mesh, summed, rows)
    tensor_cut.count_less(narrowed(model, plan.parts), mesh.size())

    inside = [name for name, style in sequence.items() if style == "gather"]
    for readers in readers_of_one(found, plan):
        apart = [n for n in readers if not any(f"{n}.".startswith(f"{i}.") for i in inside)]
        shared = Branch(mesh.get_group(), len(apart))
        for name in apart:
            tensor_cut.before(modules[name], shared)
    for name in rows:
        tensor_cut.end_rows(modules[name], mesh, features[name], tensor_cut.SEQUENCE if sequence else WHOLE)
    for name in plan.gathered:
        tensor_cut.gather(modules[name], mesh, features[name])
    for name, style in sequence.items():
        tensor_cut.lay_sequence(modules[name], mesh, style)


def readers_of_one(found: Trace, plan: Plan) -> list[list[str]]:
    """Layers cut by columns, those that read one and the same tensor together."""
    groups: dict[int, list[str]] = {}
    for name in (name for p in plan.parts for name in p.columns):
        groups.setdefault(id(found.layers[name].source), []).append(name)
    return list(groups.values())


def sequence_styles(model: nn.Module, plan: Plan) -> dict[str, str]:
    """Module name -> style, from the model's own ``sequence_plan``."""
    styles = getattr(model, "sequence_plan", None)
    where, fix = "strategy.sequence_parallel=true", "try strategy.sequence_parallel=false"
    if not styles:
        why = "the model does not say where its sequence can be split (an attribute sequence_plan)"
    elif plan.source != MODEL:
        why = f"takes the model's own plan, not the one from the {plan.source}"
    elif plan.left:
        name, reason = next(iter(plan.left.items()))
        why = f"needs the whole of the model's plan; {name}: {reason}"
    else:
        return expand(model, styles)
    raise ConfigError(Problem(where, why, fix))


@torch.no_grad()
def output(model: nn.Module, forward: Forward) -> list[Tensor]:
    with still(model):
        return [value.detach().clone() for value in tensors_of(forward(model))]


def verify(model: nn.Module, mesh: DeviceMesh, forward: Forward, expected: list[Tensor], option: str) -> None:
    """The cut model must compute what the whole one did; a collective, and the same verdict on every rank."""
    found = output(model, forward)
    alike = [same(own.to(whole.device), whole, 10) for own, whole in zip(found, expected, strict=True)]
    wrong = torch.tensor(float(not all(alike)), device=mesh.device_type)
    dist.all_reduce(wrong, group=mesh.get_group())
    if wrong.item():
        why = "cut so, the model computes something else than the whole one"
        raise ConfigError(
            Problem(f"strategy={option}", why, "name the layers to cut in strategy.plan, or try strategy=fsdp")
        )


def nothing(model: nn.Module, found: Trace, config: Any, parts: int, forward: Forward, plan: Plan) -> Problem:
    """Why no layer can be cut, and the largest number of ranks for which one can."""
    why = "; ".join(f"{name}: {reason}" for name, reason in plan.left.items())
    why = why or "no layer's output goes through elementwise operations only to another layer"
    own = config.option == "tensor"
    where, key = ("strategy=tensor", "launch.processes") if own else (f"strategy.tensor={parts}", "strategy.tensor")
    for fewer in range(parts - 1, 1, -1):
        if make(model, found, config.plan, fewer, forward).layers:
            return Problem(where, why, f"try {key}={fewer}")
    return Problem(where, why, "try strategy=fsdp")


def lines(found: Trace, plan: Plan, parts: int) -> list[str]:
    """What is cut and what not, and why, names with ``*`` for numbers."""
    cut = "; ".join(dict.fromkeys(str(p) for p in plan.parts))
    said = [f"{len(plan.layers)} of {len(found.layers)} matrices cut over {parts} ranks ({plan.source}'s plan): {cut}"]
    return said + [f"whole on every rank: {name}: {why}" for name, why in plan.left.items()]
