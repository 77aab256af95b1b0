"""Several optimizers, each over its own parameters, as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Combined(torch.optim.Optimizer):
    """One optimizer to its caller: shared ``param_groups``, ``state`` as one mapping, one state_dict.

    ``parts`` are the real optimizers. A group's dict is the same object here and in its part, so a learning
    rate set here is the one that the part steps with.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = tuple(parts)
        self.state: Any = _States(self.parts)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Step every part; the closure, if any, is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if hasattr(self, "parts"):
            raise TypeError("add the group to one of .parts, then combine them anew")
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Hand each part its groups, in the order of ``param_groups``, and their state."""
        groups = list(state_dict["param_groups"])
        if len(groups) != len(self.param_groups):
            raise ValueError(f"{len(groups)} parameter groups for an optimizer of {len(self.param_groups)}")
        first = 0
        for part in self.parts:
            own = groups[first : first + len(part.param_groups)]
            first += len(own)
            keys = {key for group in own for key in group["params"]}
            part.load_state_dict(
                {
                    "state": {key: state for key, state in state_dict["state"].items() if key in keys},
                    "param_groups": own,
                }
            )
        # Loading replaces a part's dicts; share the new ones.
        self.param_groups[:] = [group for part in self.parts for group in part.param_groups]


class _States(MutableMapping[Tensor, dict[str, Any]]):
    """Parameter -> its state, kept by the part that steps it."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self._parts = parts
        self._home = {p: part for part in parts for group in part.param_groups for p in group["params"]}

    def __getitem__(self, parameter: Tensor) -> dict[str, Any]:
        return self._home[parameter].state[parameter]

    def __setitem__(self, parameter: Tensor, state: dict[str, Any]) -> None:
        self._home[parameter].state[parameter] = state

    def __delitem__(self, parameter: Tensor) -> None:
        del self._home[parameter].state[parameter]

    def __contains__(self, parameter: object) -> bool:
        # A part's state is a defaultdict: asking it by key would make an entry.
        return parameter in self._home and parameter in self._home[parameter].state  # type: ignore[index]

    def get(self, parameter: Tensor, default: Any = None) -> Any:  # type: ignore[override]
        home = self._home.get(parameter)
        return default if home is None else home.state.get(parameter, default)

    def __iter__(self) -> Iterator[Tensor]:
        return (parameter for part in self._parts for parameter in part.state)

    def __len__(self) -> int:
        return sum(len(part.state) for part in self._parts)
