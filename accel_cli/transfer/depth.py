"""How deep a parameter stands in a model: the order that layer-wise learning rates follow."""

from __future__ import annotations

from collections import Counter

from torch import nn

DOMINANT = 0.8
"""A child with more than this share of the parameters is looked into, instead of counting as one layer."""


def depths(model: nn.Module) -> dict[str, int]:
    """Depth of each parameter by name: 0 before the first block, then 1, 2, ..., the last for the head.

    Blocks are the longest ModuleList or Sequential of like modules; where such modules stand in several lists
    (the stages of a ResNet), the children in order. Gaps are closed, so depth counts layers that have parameters.
    """
    layers = blocks(model) or ordered(model)
    order = {prefix: number for number, prefix in enumerate(layers)}
    found: dict[str, int] = {}
    latest = -1
    for name, _ in model.named_parameters():
        inside = next((number for prefix, number in order.items() if name.startswith(prefix)), None)
        if inside is not None:
            latest = max(latest, inside)
            found[name] = 2 * inside + 1
        else:
            found[name] = 2 * latest + 2
    ranks = {depth: rank for rank, depth in enumerate(sorted(set(found.values())))}
    return {name: ranks[depth] for name, depth in found.items()}


def blocks(model: nn.Module) -> list[str]:
    """Name prefixes of the repeated blocks, in order; [] where none are found, or they stand in several lists."""
    lists = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential) or len(module) < 2:
            continue
        children = list(module.named_children())
        kinds = {type(child) for _, child in children}
        if len(kinds) == 1 and any(True for _ in module.parameters()):
            prefix = f"{name}." if name else ""
            lists.append((kinds.pop(), [f"{prefix}{child}." for child, _ in children]))
    if not lists:
        return []
    kind, longest = max(lists, key=lambda entry: len(entry[1]))
    return longest if Counter(kind for kind, _ in lists)[kind] == 1 else []


def ordered(model: nn.Module, prefix: str = "") -> list[str]:
    """Name prefixes of the children that have parameters, in order; a dominant child gives its own instead."""
    children = [(f"{prefix}{name}.", child, count(child)) for name, child in model.named_children()]
    whole = sum(size for *_, size in children)
    layers: list[str] = []
    for name, child, size in children:
        inner = ordered(child, name) if size > DOMINANT * whole and next(child.children(), None) else []
        layers += inner or ([name] if size else [])
    return layers


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
