"""Parameter groups by pattern: which parameters a group means, and what it freezes."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from accel_cli.config.suggest import unmatched
from accel_cli.errors import ConfigError, Problem

WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}


def plain_name(name: str) -> str:
    """A parameter's name without the parts that torch's wrappers put in."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def group_of(name: str, groups: Sequence[Any]) -> Any | None:
    """The first group whose pattern a plain name matches."""
    return next((group for group in groups if fnmatchcase(name, group.match)), None)


def freeze(model: nn.Module, groups: Sequence[Any]) -> tuple[list[str], list[nn.Module]]:
    """Stop the gradients of the parameters of frozen groups, in a whole model.

    Returns lines for the user, and the BatchNorm layers that are wholly frozen by it: in train mode their statistics
    would still move. Raises ConfigError for a pattern that matches nothing, or nothing that an earlier one has left.
    """
    parameters = {plain_name(name): parameter for name, parameter in model.named_parameters()}
    found = {name: group_of(name, groups) for name in parameters}
    problems = []
    for group in groups:
        if not any(fnmatchcase(name, group.match) for name in parameters):
            where = f"optimizer.groups match={group.match}"
            problems.append(unmatched(where, group.match, list(parameters), "match={}"))
        elif all(other is not group for other in found.values()):
            problems.append(_hidden(group, groups))
    if problems:
        raise ConfigError(problems)
    frozen = [name for name, group in found.items() if group is not None and group.frozen]
    for name in frozen:
        parameters[name].requires_grad_(False)
    if not frozen:
        return [], []
    stopped = {id(parameters[name]) for name in frozen}
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.affine]
    still: list[nn.Module] = [layer for layer in layers if all(id(p) in stopped for p in layer.parameters())]
    numbers = sum(parameters[name].numel() for name in frozen)
    return [f"frozen by optimizer.groups: {len(frozen)} of {len(parameters)} tensors, {numbers:,} numbers"], still


def _hidden(group: Any, groups: Sequence[Any]) -> Problem:
    earlier = groups[: [other is group for other in groups].index(True)]
    why = f"all that it matches belongs to an earlier group ({', '.join(other.match for other in earlier)})"
    return Problem(f"optimizer.groups match={group.match}", why, "put it before them, or leave it out")
