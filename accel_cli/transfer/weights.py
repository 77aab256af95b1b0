"""Tensors from a file into a model, by name and shape."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from accel_cli.errors import ConfigError, Problem, SecurityError

KEY = "transfer.weights"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
IN_A_FOLDER = ("checkpoints/latest/model.safetensors", "model.safetensors")
"""Where a run keeps the weights of its last checkpoint; and where a checkpoint itself, or an export, has them."""


@dataclass(frozen=True)
class Loaded:
    """What went where, by the model's names."""

    matched: tuple[str, ...]
    new: tuple[str, ...]
    """Left at their fresh values: not in the file, or of another shape there."""
    lines: tuple[str, ...]


def find(weights: str) -> Path:
    """The safetensors file that ``weights`` means: itself, a run folder's or a checkpoint folder's.

    Raises SecurityError for a pickle, ConfigError for what does not exist.
    """
    path = Path(weights).expanduser()
    where = f"{KEY}={weights}"
    if path.is_dir():
        for inside in IN_A_FOLDER:
            if (path / inside).is_file():
                return path / inside
        if pickles := sorted(p for p in path.iterdir() if p.suffix in PICKLES):
            raise SecurityError(pickle_problem(where, pickles[0]))
        why = f"a folder without {' or '.join(IN_A_FOLDER)}"
        raise ConfigError(Problem(where, why, "name a run that has saved a checkpoint, or a .safetensors file"))
    if not path.is_file():
        siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), siblings, n=1)
        fix = f"did you mean {KEY}={near[0]} ?" if near else "name a .safetensors file or a run folder"
        raise ConfigError(Problem(where, "no such file or folder", fix))
    if path.suffix in PICKLES or looks_pickled(path):
        raise SecurityError(pickle_problem(where, path))
    return path


def looks_pickled(path: Path) -> bool:
    """Whether the first bytes are torch.save's (a zip, or a bare pickle), whatever the file is called."""
    with path.open("rb") as file:
        head = file.read(9)
    is_safetensors = head[8:] == b"{"
    return not is_safetensors and (head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] < b"\x06"))


def pickle_problem(where: str, path: Path) -> Problem:
    target = path.with_suffix(".safetensors")
    convert = f"s.save_file(torch.load('{path}', weights_only=True), '{target}')"
    return Problem(
        where,
        f"{path.name} is a pickle, which can run code when it is read",
        f'convert it where you trust it: python -c "import torch, safetensors.torch as s; {convert}"',
    )


def plain(name: str) -> str:
    """A tensor's name without what compilation, DDP and activation checkpointing put into it."""
    for wrapper in ("_orig_mod.", "_checkpoint_wrapped_module."):
        name = name.replace(wrapper, "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


@torch.no_grad()
def load(model: nn.Module, weights: str) -> Loaded:
    """Copy every tensor whose name and shape agree; report the others. On the meta device nothing is copied.

    Raises ConfigError for a damaged file and where nothing agrees, SecurityError for a pickle.
    """
    path = find(weights)
    here = {plain(name): (name, tensor) for name, tensor in model.state_dict(keep_vars=True).items()}
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            sources = {key if key in here else plain(key): key for key in shapes}
            found = [name for name in here if name in sources]
            matched = [name for name in found if shapes[sources[name]] == tuple(here[name][1].shape)]
            for name in matched:
                tensor = here[name][1]
                if not tensor.is_meta:
                    tensor.copy_(file.get_tensor(sources[name]))
    except (SafetensorError, OSError) as error:
        why = f"not readable as safetensors: {error}"
        raise ConfigError(Problem(f"{KEY}={weights}", why, "copy the file again; it is damaged or cut off")) from error
    if not any(here[name][1].dim() for name in matched):  # BatchNorm's counters alone are not a match
        raise ConfigError(nothing_matched(weights, shapes, here))

    # A tied tensor has two names and may stand in the file under either.
    filled = {id(here[name][1]) for name in matched}
    misshapen = [name for name in found if name not in set(matched)]
    absent = [name for name in here if name not in sources and id(here[name][1]) not in filled]
    numbers = sum(here[name][1].numel() for name in matched)
    lines = [f"{len(matched)} of {len(here)} tensors ({numbers:,} numbers) from {path}"]
    lines += [
        f"{name}: {size(shapes[sources[name]])} in the file, {size(tuple(here[name][1].shape))} here: new"
        for name in misshapen
    ]
    lines += shortened([f"{name}: not in the file: new" for name in absent])
    lines += shortened([f"{key}: in the file, not here: left out" for name, key in sources.items() if name not in here])
    return Loaded(
        matched=tuple(here[name][0] for name in matched),
        new=tuple(here[name][0] for name in (*misshapen, *absent)),
        lines=tuple(lines),
    )


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
