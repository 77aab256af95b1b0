"""Tensors of a source into a model, by name and shape."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem
from accel_cli.transfer.source import KEY, Source, opened


@dataclass(frozen=True)
class Loaded:
    """What went where, by the model's names."""

    matched: tuple[str, ...]
    new: tuple[str, ...]
    """Left at their fresh values: not in the source, or of another shape there."""
    lines: tuple[str, ...]


def plain(name: str) -> str:
    """A tensor's name without what compilation, DDP and activation checkpointing put into it."""
    for wrapper in ("_orig_mod.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


@torch.no_grad()
def load(model: nn.Module, weights: str, description: DataDescription | None = None) -> Loaded:
    """Copy every tensor whose name and shape agree; report the others. On the meta device nothing is copied.

    ``description`` is this run's data, for a word where a run's had other classes. Raises ConfigError for a damaged
    file and where nothing agrees, SecurityError for a pickle, ResourceError for published weights that cannot be had.
    """
    here = {plain(name): (name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    with opened(weights) as source:
        shapes = source.shapes
        sources = {key if key in here else plain(key): key for key in shapes}
        matched = matching(here, shapes, sources)
        added = ""
        if not matched:
            sources, added = shifted(here, shapes, sources)
            matched = matching(here, shapes, sources)
        if not matched:
            raise ConfigError(nothing_matched(weights, shapes, here))
        for name in matched:
            tensor = here[name][1]
            if not tensor.is_meta:
                tensor.copy_(source.tensor(sources[name]))

    # A tied tensor has two names and may stand in the file under either.
    filled = {id(here[name][1]) for name in matched}
    misshapen = [name for name in here if name in sources and name not in set(matched)]
    absent = [name for name in here if name not in sources and id(here[name][1]) not in filled]
    numbers = sum(here[name][1].numel() for name in matched)
    lines = [f"{len(matched)} of {len(here)} tensors ({numbers:,} numbers) from {source.said}"]
    lines += [added] if added else []
    lines += about(source, description)
    lines += shortened(
        [
            f"{name}: {size(shapes[sources[name]])} in the file, {size(tuple(here[name][1].shape))} here: new"
            for name in misshapen
        ]
    )
    lines += shortened([f"{name}: not in the file: new" for name in absent])
    lines += shortened([f"{key}: in the file, not here: left out" for name, key in sources.items() if name not in here])
    return Loaded(
        matched=tuple(here[name][0] for name in matched),
        new=tuple(here[name][0] for name in (*misshapen, *absent)),
        lines=tuple(lines),
    )


def matching(
    here: dict[str, tuple[str, Tensor]], shapes: dict[str, tuple[int, ...]], sources: dict[str, str]
) -> list[str]:
    """The names whose shapes agree; none where these are BatchNorm's counters alone."""
    found = [name for name, (_, t) in here.items() if name in sources and shapes[sources[name]] == tuple(t.shape)]
    return found if any(here[name][1].dim() for name in found) else []


def shifted(
    here: dict[str, tuple[str, Tensor]], shapes: dict[str, tuple[int, ...]], sources: dict[str, str]
) -> tuple[dict[str, str], str]:
    """The names with the beginning that makes most of them agree taken off or put before, and a line that says so."""
    tried = []
    for start in beginnings(sources):
        without = {name.removeprefix(start): key for name, key in sources.items() if name.startswith(start)}
        tried.append((without, f"names in the file begin with {start} and are read without it"))
    for start in beginnings(here):
        tried.append(
            ({start + name: key for name, key in sources.items()}, f"{start} was put before names in the file")
        )
    counts = [len(matching(here, shapes, names)) for names, _ in tried]
    most = max(counts, default=0)
    # A few may agree by chance.
    return tried[counts.index(most)] if 2 * most >= min(len(here), len(sources)) > 0 else (sources, "")


def beginnings(names: Iterable[str]) -> list[str]:
    """``a.`` and ``a.b.`` of every name ``a.b.c``, in order."""
    parts = [name.split(".")[:-1] for name in names]
    return list(dict.fromkeys(".".join(p[:count]) + "." for p in parts for count in range(1, len(p) + 1)))


def about(source: Source, description: DataDescription | None) -> list[str]:
    """What a checkpoint's manifest says that shapes do not: other classes, another structure."""
    lines = []
    made = [f"{change['part']} at step {change['step']}" for change in source.manifest.get("structure") or ()
            if change.get("record") is not None]  # fmt: skip
    if made:
        lines.append(f"their model's structure had been changed by {', '.join(made)}: tensors of other shapes are new")
    theirs = (source.manifest.get("description") or {}).get("class_names")
    ours = description.class_names if description is not None else None
    if theirs and ours and len(theirs) == len(ours) and tuple(theirs) != ours:
        there, here = (", ".join(shortened(list(map(str, names)))) for names in (theirs, ours))
        lines.append(
            f"warning: as many classes, but others: {there} there, {here} here: what fits of their head is kept"
        )
    return lines


def size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def shortened(lines: list[str], most: int = 8) -> list[str]:
    return lines if len(lines) <= most else [*lines[: most - 1], f"... and {len(lines) - most + 1} more"]


def nothing_matched(weights: str, shapes: dict[str, tuple[int, ...]], here: dict) -> Problem:
    """The problem of a file for another model, with the pair of names that come nearest."""
    pairs = [(key, near) for key in shapes for near in difflib.get_close_matches(key, here, n=1)]
    pairs.sort(key=lambda pair: (pair[0] != pair[1], -len(shapes[pair[0]])))
    pairs = pairs or list(zip(list(shapes)[:1], list(here)[:1], strict=False))
    nearest = "; ".join(
        f"{key} {size(shapes[key])} there, {near} {size(tuple(here[near][1].shape))} here" for key, near in pairs[:3]
    )
    why = f"no tensor has the name and shape of one of this model's; nearest: {nearest or 'none, it is empty'}"
    return Problem(f"{KEY}={weights}", why, "choose the model and widths that the weights were trained with")
