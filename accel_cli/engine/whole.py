"""A run's whole model, as its checkpoints hold it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.description import DataDescription
from accel_cli.engine.borders import changes_in, parts_of, replay
from accel_cli.engine.checkpoint_files import Saved, newest, verify
from accel_cli.engine.state import check_fit
from accel_cli.engine.training import Whole
from accel_cli.errors import CheckpointError

FINISHED = "finished"
"""Beside the checkpoints: the model after the changes that are made when training has ended."""


def whole_model(run: Run, description: DataDescription, saved: Saved) -> nn.Module:
    """The model of a checkpoint with its evaluation weights, on the host, in evaluation mode."""
    model = implementation("model", run.model)(run.model, description)
    model = replay(model, parts_of(run), changes_in(saved))
    averaged = saved.holds("average")
    tensors = saved.tensors("average" if averaged else "model")
    if run.precision.option == "bf16_pure":
        here = model.state_dict()
        tensors = {name: value.to(here[name].dtype) if name in here else value for name, value in tensors.items()}
    check_fit(Whole.of(model), tensors)
    model.load_state_dict(tensors)
    return model.eval()


def saved_model(folder: Path, which: str) -> tuple[Saved, list[str]]:
    """What holds the model of a run: ``latest`` is the finished one where there is one, else the newest checkpoint.

    Returns it and what was wrong with those passed over. Raises CheckpointError where nothing is whole.
    """
    checkpoints = folder / "checkpoints"
    if which == "latest":
        return (verify(checkpoints / FINISHED), []) if (checkpoints / FINISHED).is_dir() else newest(folder)
    path = (checkpoints / which).resolve()
    if not path.is_dir():
        raise CheckpointError(f"{folder} has no checkpoint {which}", "try which='latest'")
    return verify(path), []
