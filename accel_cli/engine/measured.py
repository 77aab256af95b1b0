"""What trials found on this machine, kept for later runs of the same shape."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch

from accel_cli.config.machine import detect
from accel_cli.data.cache import cache_folder
from accel_cli.engine.training import Training
from accel_cli.world import World

FORMAT = 1
"""Counts the meanings of an entry: another one is another key."""
GROUPS = (
    "hardware", "strategy", "communication", "precision", "compile", "optimizer", "loader", "augment", "model",
    "transfer", "compression",
)  # fmt: skip
"""What else a step's time follows from, beside shapes; their values are in the key."""

TRAIN = ("activation_checkpointing", "blocks", "clip_norm", "clip_value", "ema", "lookahead")
"""Of the plain keys, those that it follows from."""


def key(training: Training, what: str) -> str:
    """A hash of the machine, the shapes of weights and batches, and the settings that a step's time follows from."""
    t, machine = training, detect()
    tree = t.run.to_tree()
    facts = {
        "format": FORMAT,
        "what": what,
        "torch": torch.__version__,
        "machine": [machine.cpu_name, machine.cores, [gpu.name for gpu in machine.gpus], torch.get_num_threads()],
        "world_size": t.world.world_size,
        "batch": [t.work.micro_batch, t.work.micro_batches, *t.description.input_shape],
        "weights": [list(shape) for shape, _ in t.whole.shapes.values()],
        "settings": {group: tree[group] for group in GROUPS},
        "train": {name: getattr(t.run.train, name) for name in TRAIN},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def recall(world: World, name: str) -> dict[str, Any] | None:
    """What the first rank's machine knows under a key, on every rank; a collective."""
    found: dict[str, Any] | None = None
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(_path(name).read_text()) if world.is_first else None
    shared = world.gather(found)[0]
    return shared if isinstance(shared, dict) else None


def keep(world: World, name: str, facts: dict[str, Any]) -> None:
    """Remember; a folder that cannot be written to only means measuring again."""
    if not world.is_first:
        return
    path = _path(name)
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(facts))
        partial.replace(path)


def _path(name: str) -> Path:
    return cache_folder(None) / "measured" / f"{name}.json"
