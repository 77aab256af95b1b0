"""Where trained tensors come from: a safetensors file, a run or checkpoint folder, or what a library publishes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from accel_cli.config.parts import load
from accel_cli.errors import ConfigError, Problem, SecurityError

KEY = "transfer.weights"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
IN_A_FOLDER = ("checkpoints/finished/model.safetensors", "checkpoints/latest/model.safetensors", "model.safetensors")
"""Where a run keeps what it ended as, and the weights of its last checkpoint; where a checkpoint or export has them."""
PUBLISHED = {
    "torchvision:": "accel_cli.transfer.published_torchvision:tensors",
    "timm:": "accel_cli.transfer.published_timm:tensors",
}


@dataclass(frozen=True)
class Source:
    """Tensors by name, of which each is read when it is asked for."""

    said: str
    """What the user is told that they come from."""
    shapes: dict[str, tuple[int, ...]]
    tensor: Callable[[str], Tensor]
    manifest: dict[str, Any] = field(default_factory=dict)
    """Of the checkpoint, where they are one's."""


@contextmanager
def opened(weights: str) -> Iterator[Source]:
    """What ``weights`` means. Raises SecurityError for a pickle, ConfigError for what is not there or damaged,
    ResourceError for published weights that cannot be had."""
    for beginning, place in PUBLISHED.items():
        if weights.startswith(beginning):
            tensors: dict[str, Tensor] = load(place)(weights.removeprefix(beginning), f"{KEY}={weights}")
            yield Source(weights, {name: tuple(t.shape) for name, t in tensors.items()}, tensors.__getitem__)
            return
    path = find(weights)
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            yield Source(str(path), shapes, file.get_tensor, manifest_of(path))
    except (SafetensorError, OSError) as error:
        why = f"not readable as safetensors: {error}"
        raise ConfigError(Problem(f"{KEY}={weights}", why, "copy the file again; it is damaged or cut off")) from error


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
        why = f"a folder without {' or '.join(IN_A_FOLDER[1:])}"
        raise ConfigError(Problem(where, why, "name a run that has saved a checkpoint, or a .safetensors file"))
    if not path.is_file():
        siblings = [str(p) for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(str(path), siblings, n=1)
        fix = f"did you mean {KEY}={near[0]} ?" if near else "name a .safetensors file or a run folder"
        raise ConfigError(Problem(where, "no such file or folder", fix))
    if path.suffix in PICKLES or looks_pickled(path):
        raise SecurityError(pickle_problem(where, path))
    return path


def manifest_of(path: Path) -> dict[str, Any]:
    """What a checkpoint says of its tensors; {} where none stands beside them, or none that is readable."""
    try:
        found = json.loads((path.parent / "manifest.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


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
