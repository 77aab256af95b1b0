"""What follows a phase of training: the next structure, a step back from one that did not pay, or the end."""

from __future__ import annotations

import shutil
from pathlib import Path

from accel_cli.engine import checkpoint_files
from accel_cli.engine.borders import Start
from accel_cli.engine.bought import Bought
from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.handover import newest
from accel_cli.engine.loop import AT_BORDER, Progress
from accel_cli.engine.training import Training
from accel_cli.errors import ResourceError
from accel_cli.structure import Change


def next_start(t: Training, status: str, folder: Path, bought: Bought, progress: Progress) -> Start | None:
    """Where training goes on from, None at its end; a collective.

    Raises ResourceError where the checkpoint that it would go on from could not be written.
    """
    if bought.open:
        seen = progress.latest if progress.evaluated_step == t.step else evaluate(t, "validation")
        bought.recovered(seen[f"validation_{t.task.metric}"], t.world)
    if (undone := bought.to_undo(t)) is not None:
        return _back(t, folder, *undone)
    if status != AT_BORDER:
        return None
    found = newest(t.world, folder, resume=True, restarted=False)
    if found is None or found[0].step != t.step:
        raise ResourceError(
            f"the model changes before step {t.step}, which could not be saved", "make room on the disk"
        )
    return Start.of(found[0])


def _back(t: Training, folder: Path, part: str, step: int) -> Start:
    """The start before a part's first change, with the note that it is not to be made again."""
    undone = Change(part, step, None)
    if step == 0:
        if t.world.is_first:
            _delete_after(folder, -1)
        t.world.barrier()
        # With those of before, or two passes that begin here would take turns for ever.
        return Start(None, (*(change for change in t.start.changes if change.record is None), undone))
    saved = checkpoint_files.verify(folder / "checkpoints" / checkpoint_files.folder_name(step))
    before = Start.of(saved)
    if t.world.is_first:
        checkpoint_files.amend(saved, {"structure": [c.to_dict() for c in (*before.changes, undone)]})
        _delete_after(folder, step)
    t.world.barrier()
    return Start.of(checkpoint_files.verify(saved.folder))


def _delete_after(folder: Path, step: int) -> None:
    """Checkpoints of a structure that was given up: a resume must not find them."""
    checkpoints = folder / "checkpoints"
    for later in [found for found in checkpoint_files.steps_in(checkpoints) if found > step]:
        shutil.rmtree(checkpoints / checkpoint_files.folder_name(later))
    for link in ("latest", "best"):
        if (checkpoints / link).is_symlink() and not (checkpoints / link).exists():
            (checkpoints / link).unlink()
