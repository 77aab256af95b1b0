"""What a checkpoint keeps of every rank where ranks train replicas of their own: weights, optimizer, loss scale."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

from accel_cli.engine.checkpoint_files import Saved
from accel_cli.engine.state import optimizer_tensors
from accel_cli.engine.training import Training

PARTS = ("model", "average", "optimizer", "value", "scaler", "strategy")
NUMBERS = ("value", "scaler")
"""These are plain numbers in the live objects, and tensors of no dimension in the file."""


def collect(t: Training) -> dict[str, dict[str, Tensor]]:
    """``rank<n>`` -> its own tensors as ``<part>/<name>``, on rank 0; a collective. {} where ranks are equal."""
    if not t.strategy.replicas_differ:
        return {}
    moments, values = optimizer_tensors(t.optimizer, t.bare)
    frozen = {name for name, p in t.bare.named_parameters(remove_duplicate=False) if not p.requires_grad}
    parts: tuple[dict[str, Any], ...] = (
        {name: value for name, value in t.bare.state_dict().items() if name not in frozen},
        t.average.tensors,
        moments,
        {name: _tensor(value) for name, value in values.items() if isinstance(value, (int, float))},
        {name: _tensor(value) for name, value in t.scaler.state().items()},
        t.strategy.own_state(),
    )
    own = {f"{part}/{name}": value for part, held in zip(PARTS, parts, strict=True) for name, value in held.items()}
    # Bytes and not tensors: a pickled view takes all of its storage with it.
    packed = save({name: value.to("cpu", copy=True).contiguous() for name, value in own.items()})
    found: list[Any] | None = [packed] * t.world.world_size if t.world.is_first else None
    if t.world.world_size > 1:
        dist.gather_object(packed, found)
    return {f"rank{rank}": load(held) for rank, held in enumerate(found or [])}


def own_part(t: Training, saved: Saved) -> dict[str, dict[str, Any]]:
    """Part -> name -> value, of this rank; {} where the checkpoint's ranks were equal, or others than these."""
    name = f"rank{t.world.rank}"
    if _other_ranks(t, saved) or not saved.holds(name):
        return {}
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for key, value in saved.tensors(name).items():
        part, _, rest = key.partition("/")
        found[part][rest] = value.item() if part in NUMBERS else value
    return found


def left_behind(t: Training, saved: Saved) -> list[str]:
    """What the user should know of a checkpoint of replicas that other ranks go on from."""
    if not _other_ranks(t, saved) or not saved.holds("rank0"):
        return []
    return [
        f"step {saved.step} was saved by {saved.manifest['world_size']} replicas under "
        f"strategy={saved.manifest['strategy']}: going on from their mean, with the first one's optimizer state"
    ]


def _other_ranks(t: Training, saved: Saved) -> bool:
    written_by = saved.manifest["world_size"], saved.manifest.get("strategy")
    return written_by != (t.world.world_size, t.run.strategy.option)


def _tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
