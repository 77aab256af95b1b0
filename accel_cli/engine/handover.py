"""The newest checkpoint of a run, whichever node's disk has it, on every node."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch.distributed as dist

from accel_cli.engine.checkpoint_files import Saved, digest, folder_name, steps_in, verify
from accel_cli.engine.checkpoint_files import newest as newest_here
from accel_cli.errors import CheckpointError
from accel_cli.world import World

Found = tuple[Saved, list[str]] | None
"""A checkpoint and what was wrong with newer ones that were passed over; None where there is none."""
CHUNK = 32 << 20
"""Bytes sent at a time."""


def newest(world: World, folder: Path, *, resume: bool, restarted: bool) -> Found:
    """The newest whole checkpoint, and what was wrong with those passed over; None to begin at the start.

    A collective. Nodes that share no disk get it from the first rank that has it; where all ranks see the same one,
    nothing is sent. Raises CheckpointError where there is none and ``resume`` was asked for by any rank; ``restarted``
    ranks begin anew then.
    """
    wishes = world.gather((resume, restarted))
    if not any(resume or restarted for resume, restarted in wishes):
        return None
    saved: Saved | None = None
    passed: list[str] = []
    problem: CheckpointError | None = None
    try:
        saved, passed = newest_here(folder)
    except CheckpointError as error:
        problem = error
    seen = world.gather((saved.step, digest(saved.folder / "manifest.json")) if saved is not None else None)
    best = max((step for step in seen if step is not None), default=None, key=lambda step: step[0])
    if best is None:
        if any(resume for resume, _ in wishes):
            raise problem or CheckpointError("no checkpoint")
        return None
    if saved is not None and all(step == best for step in seen):
        return saved, passed
    _send(world, folder / "checkpoints", best[0], seen.index(best), lacks=seen[world.rank] != best)
    return verify(folder / "checkpoints" / folder_name(best[0])), passed


def _send(world: World, folder: Path, step: int, source: int, *, lacks: bool) -> None:
    """Copy a checkpoint from rank ``source`` to the nodes that lack it, whose own older ones make room."""
    here = folder / folder_name(step)
    partial = folder / f".{folder_name(step)}-received"
    writes = lacks and world.local_rank == 0
    if writes:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    names = sorted(path.name for path in here.iterdir()) if world.rank == source else []
    for name in world.gather(names)[source]:
        with (here / name).open("rb") if world.rank == source else open("/dev/null", "rb") as file:
            out = (partial / name).open("wb") if writes else None
            while True:
                chunk = [file.read(CHUNK)]
                dist.broadcast_object_list(chunk, src=source, device=world.device)
                if not chunk[0]:
                    break
                if out is not None:
                    out.write(chunk[0])
            if out is not None:
                out.close()
    if writes:
        for older in steps_in(folder):
            shutil.rmtree(folder / folder_name(older))
        partial.rename(here)
    world.barrier()
