"""The model of a run that has been trained, from its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from accel_cli.config import run as run_file
from accel_cli.description import DataDescription
from accel_cli.engine.whole import saved_model, whole_model


class TrainedModel(NamedTuple):
    """``model`` in evaluation mode on the CPU, ``description`` of the data that it was trained on."""

    model: nn.Module
    description: DataDescription
    task: str


def trained_model(folder: Path, which: str) -> TrainedModel:
    """The model of a checkpoint: ``latest``, ``best`` or a checkpoint's name; its averaged weights where it has some.

    Raises ConfigError where the folder holds no run, CheckpointError where no checkpoint is whole.
    """
    settings = run_file.read(folder / "run.yaml")
    saved, _ = saved_model(folder, which)
    description = DataDescription.from_dict(saved.manifest["description"])
    return TrainedModel(whole_model(settings, description, saved), description, settings.task.option)
