"""The model of a run that has been trained, from its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from accel_cli.config import run as run_file
from accel_cli.config.parts import implementation
from accel_cli.description import DataDescription
from accel_cli.engine.checkpoint_files import Saved, newest, verify
from accel_cli.engine.state import check_fit
from accel_cli.engine.training import Whole
from accel_cli.errors import CheckpointError


class TrainedModel(NamedTuple):
    """``model`` in evaluation mode on the CPU, ``description`` of the data that it was trained on."""

    model: nn.Module
    description: DataDescription
    task: str
    checkpoint: str = ""
    """The name of its folder."""


def trained_model(folder: Path, which: str) -> TrainedModel:
    """The model of a checkpoint: ``latest``, ``best`` or a checkpoint's name; its averaged weights where it has some.

    Raises ConfigError where the folder holds no run, CheckpointError where no checkpoint is whole.
    """
    settings = run_file.read(folder / "run.yaml")
    saved = _saved(folder, which)
    description = DataDescription.from_dict(saved.manifest["description"])
    model = implementation("model", settings.model)(settings.model, description)
    averaged = "average.safetensors" in saved.manifest["files"]
    tensors = saved.tensors("average" if averaged else "model")
    if settings.precision.option == "bf16_pure":
        tensors = {name: value.float() if value.dtype == torch.bfloat16 else value for name, value in tensors.items()}
    check_fit(Whole.of(model), tensors)
    model.load_state_dict(tensors)
    return TrainedModel(model.eval(), description, settings.task.option, saved.folder.name)


def _saved(folder: Path, which: str) -> Saved:
    if which == "latest":
        return newest(folder)[0]
    path = (folder / "checkpoints" / which).resolve()
    if not path.is_dir():
        raise CheckpointError(f"{folder} has no checkpoint {which}", "try which='latest'")
    return verify(path)
