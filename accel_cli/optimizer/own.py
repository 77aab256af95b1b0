"""What the optimizers written here share: tensors in lists, numbers by parameter, the parts that a rank holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Own(torch.optim.Optimizer):
    """Updates the parameters of a group together, those of unequal history apart.

    ``buffers`` are names of state tensors in the parameter's shape, zero at first; ``numbers`` of plain floats, 0 at
    first. Being by parameter, they are saved and loaded as every optimizer's state is.
    """

    buffers: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    def __init__(self, groups: list[dict[str, Any]], **defaults: Any) -> None:
        super().__init__(groups, defaults)

    def begin(self, parameter: Tensor) -> dict[str, Tensor]:
        """The state tensors before the first step."""
        return {name: torch.zeros_like(parameter) for name in self.buffers}

    def update(self, group: dict[str, Any], parameters: list[Tensor], state: dict[str, Any]) -> dict[str, float]:
        """One step, in place, of the whole parameters; ``state`` has a list for a buffer, a float for a number.

        Returns the new numbers. Elementwise work is for ``local``; norms are for ``norms``.
        """
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[tuple[float, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(self.begin(parameter), **dict.fromkeys(self.numbers, 0.0))
                alike.setdefault(tuple(state[name] for name in self.numbers), []).append(parameter)
            for numbers, parameters in alike.items():
                states = [self.state[parameter] for parameter in parameters]
                held: dict[str, Any] = {name: [local(state[name]) for state in states] for name in self.buffers}
                found = self.update(group, parameters, held | dict(zip(self.numbers, numbers, strict=True)))
                for state in states:
                    state.update(found)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor: all of a plain one."""
    return getattr(tensor, "_local_tensor", tensor)


def gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [local(parameter.grad) for parameter in parameters if parameter.grad is not None]


def norms(parts: Sequence[Tensor], like: Sequence[Tensor]) -> Tensor:
    """The 2-norms [n] of n whole tensors of which ``parts`` are this rank's, laid out as ``like``.

    A collective where they are sharded: one for each dimension of the mesh.
    """
    squares = torch.stack(torch._foreach_norm(list(parts))).float().square()
    mesh = getattr(like[0], "device_mesh", None)
    for dimension in range(mesh.ndim if mesh is not None else 0):
        cut = torch.tensor([not t.placements[dimension].is_replicate() for t in like], device=squares.device)  # type: ignore[attr-defined]
        summed = squares * cut
        dist.all_reduce(summed, group=mesh.get_group(dimension))  # type: ignore[union-attr]
        squares = torch.where(cut, summed, squares)
    return squares.sqrt()
