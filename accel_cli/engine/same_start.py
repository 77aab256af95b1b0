"""Ranks have to begin with the same model: most strategies never send its weights from one to another."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from accel_cli.errors import ConfigError, Problem
from accel_cli.world import World

NEAR = 1e-6
"""Of processors of different kinds, the same draws may differ in their last bits, and sums in their order."""


def check(model: nn.Module, world: World) -> None:
    """Raise ConfigError, on all ranks, where their whole models hold different numbers; a collective."""
    if world.world_size == 1:
        return
    first, *others = world.gather(digest(model))
    for rank, other in enumerate(others, 1):
        for name in first.keys() | other.keys():
            if name not in first or name not in other or not near(first[name], other[name]):
                why = f"rank {rank} begins with another {name} than rank 0"
                fix = "draw from torch's, numpy's or Python's own generators: they have the same seed on every rank"
                raise ConfigError(Problem("model", why, fix))


@torch.no_grad()
def digest(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Tensor name -> (its number of elements, their sum, their 2-norm), summed in fp64."""
    tensors = {n: torch.view_as_real(t) if t.is_complex() else t for n, t in model.state_dict().items()}
    sums = [torch.stack(_sums(tensor.detach())).cpu() for tensor in tensors.values()]
    return {name: (t.numel(), *pair.tolist()) for (name, t), pair in zip(tensors.items(), sums, strict=True)}


def _sums(tensor: Tensor) -> tuple[Tensor, Tensor]:
    if not tensor.is_floating_point():
        tensor = tensor.double()
    return tensor.sum(dtype=torch.float64), torch.linalg.vector_norm(tensor, dtype=torch.float64)


def near(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """A sum may be near 0: what it may differ by is a share of the largest that it could be, norm x root of size."""
    (size, total, norm), (other_size, other_total, other_norm) = one, other
    if size != other_size or not all(map(math.isfinite, (total, norm, other_total, other_norm))):
        return str(one) == str(other)
    return math.isclose(norm, other_norm, rel_tol=NEAR) and abs(total - other_total) <= NEAR * norm * math.sqrt(size)
