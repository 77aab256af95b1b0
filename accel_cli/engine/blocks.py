"""Blocks: the like parts that a deep model repeats, which are sharded, checkpointed and compiled one by one."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from accel_cli.errors import ConfigError, Problem

LISTS = (nn.ModuleList, nn.Sequential)


def find_blocks(model: nn.Module, patterns: Sequence[str] | None) -> list[nn.Module]:
    """The model's blocks, in order; [] where it has none.

    ``patterns`` name them, as ``encoder.layer.*``. Without, they are the modules of the class that is found most often
    in the model's lists, a resnet's stages being lists of their own; single layers only where nothing larger repeats.
    Raises ConfigError for a pattern that nothing matches.
    """
    if patterns is not None:
        return _named(model, patterns)
    larger: dict[type[nn.Module], list[nn.Module]] = {}
    layers: dict[type[nn.Module], list[nn.Module]] = {}
    for module in model.modules():
        for child in module if isinstance(module, LISTS) else ():
            if not isinstance(child, LISTS) and any(True for _ in child.parameters()):
                found = larger if any(True for _ in child.children()) else layers
                found.setdefault(type(child), []).append(child)
    for candidates in (larger, layers):
        most = max(candidates.values(), key=len, default=[])
        if len(most) > 1:
            return most
    return []


def _named(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    modules = dict(model.named_modules())
    found: dict[str, nn.Module] = {}
    for pattern in patterns:
        matching = {n: m for n, m in modules.items() if n and _matches(n, pattern)}
        if not matching:
            why = f"no module of the model is called {pattern}"
            named = [n for n, m in modules.items() if isinstance(m, LISTS)]
            raise ConfigError(Problem("train.blocks", why, f"lists it has: {', '.join(named) or 'none'}"))
        found |= matching
    return [module for name, module in modules.items() if name in found]


def _matches(name: str, pattern: str) -> bool:
    """A star stands for one part of a name."""
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
