"""Blocks: the like parts that a deep model repeats, which are sharded, checkpointed and compiled one by one."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn

from accel_cli.errors import ConfigError, Problem

LISTS = (nn.ModuleList, nn.Sequential)


def find_blocks(model: nn.Module, patterns: Sequence[str] | None) -> list[nn.Module]:
    """The model's blocks, in order; [] where it has none.

    ``patterns`` name them, as ``encoder.layer.*``. Without, they are the longest run of modules of one class in a
    list, of those of one length the outermost, and such runs of the same class in other lists: a resnet's stages
    are lists of their own. Raises ConfigError for a pattern that nothing matches.
    """
    if patterns is not None:
        return _named(model, patterns)
    runs: dict[type[nn.Module], list[nn.Module]] = {}
    for module in model.modules():
        if isinstance(module, LISTS):
            for child in module:
                if any(True for _ in child.parameters()) and any(True for _ in child.children()):
                    runs.setdefault(type(child), []).append(child)
    runs = {kind: found for kind, found in runs.items() if kind not in LISTS}
    longest = max(runs.values(), key=len, default=[])
    return longest if len(longest) > 1 else []


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
