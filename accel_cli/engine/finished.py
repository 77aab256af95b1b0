"""The finished model: a run's evaluation weights, after the changes that are made when training has ended.

checkpoints/finished/   manifest.json  model.safetensors: there only where something was changed at the end
"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from accel_cli.engine.borders import Start, Watch, cross, due
from accel_cli.engine.carried import Carried
from accel_cli.engine.checkpoint_files import write
from accel_cli.engine.evaluate import Around
from accel_cli.engine.handover import newest
from accel_cli.engine.setup import batch_of, border_of
from accel_cli.engine.training import Training
from accel_cli.engine.whole import FINISHED, whole_model
from accel_cli.errors import ResourceError


def finish(t: Training, folder: Path, watch: Watch) -> nn.Module | None:
    """Make and write what comes after training, of the weights in its last checkpoint; a collective.

    Returns the whole model on the device of each rank, the same on all; None where nothing is to be changed. Raises
    ResourceError where there is no room for it.
    """
    parts = t.parts
    if not due(parts, t.start.changes, t.steps, t.steps):
        return None
    found = newest(t.world, folder, resume=True, restarted=False)
    assert found is not None
    saved = found[0]
    model = whole_model(t.run, t.description, saved).to(t.world.device)
    carried = Carried.of(saved)
    carried.held["model"] = dict(model.state_dict())
    carried.held["average"] = {}
    device = t.world.device
    border = border_of(t.run, t.steps, t.steps, t.task, t.data, device, batch_of(t.data, 2, device))
    around = Around(t.run, t.data, t.task, t.world, t.hardware, t.precision)
    model, start = cross(model, parts, Start(carried, t.start.changes), border, watch, around)
    if t.world.is_first:
        tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        manifest = {**saved.manifest, "structure": [change.to_dict() for change in start.changes]}
        try:
            write(folder / "checkpoints", saved.step, {"model": tensors}, "{}", manifest, name=FINISHED)
        except OSError as error:
            why = f"the finished model was not saved: {error.strerror or error}"
            raise ResourceError(why, f"make room, then accel resume {folder}") from error
    return model.eval()


def forget(folder: Path) -> None:
    """Training goes on: what was finished is no longer the run's model."""
    shutil.rmtree(folder / "checkpoints" / FINISHED, ignore_errors=True)
