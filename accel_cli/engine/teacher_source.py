"""Where a teacher comes from: a run's folder, torchvision by name, or the user's own code with a file of weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from accel_cli.config.parts import implementation
from accel_cli.config.schema.model import Custom, Torchvision
from accel_cli.description import DataDescription
from accel_cli.engine.trained import TrainedModel, trained_model
from accel_cli.errors import CheckpointError, ConfigError, Problem, SecurityError
from accel_cli.transfer.source import looks_pickled, pickle_problem

BYTE = 255


def find_teacher(config: Any, key: str, data: Any, task: str) -> TrainedModel:
    """What ``config`` names: its ``teacher``, with ``checkpoint`` of a run, with ``weights`` and ``args`` of others.

    ``key`` is where ``config`` stands. One that is no run reads the inputs of this run's data, standardised as this run
    does it. Raises ConfigError for what does not exist or does not fit, SecurityError for a pickle, ResourceError where
    published weights cannot be had.
    """
    description = data.describe()
    if config.architecture is not None:
        return _of_torchvision(config, key, data, description, task)
    if not config.is_factory:
        return _of_run(config, key)
    custom = Custom(option="custom", factory=config.teacher, args=config.args)
    model = _built(lambda: implementation("model", custom)(custom, description), key)
    if config.weights is not None:
        _fill(model, config.weights, f"{key}.weights")
    return TrainedModel(model.eval(), description, task)


def _of_run(config: Any, key: str) -> TrainedModel:
    where, folder = f"{key}.teacher={config.teacher}", Path(config.teacher).expanduser()
    if not (folder / "run.yaml").is_file():
        why = "a folder without run.yaml" if folder.is_dir() else "no such folder"
        fix = (
            "name the folder of a run, such as runs/<time>-<name>, torchvision:<architecture>, or your own module:name"
        )
        raise ConfigError(Problem(where, why, fix))
    try:
        return trained_model(folder, config.checkpoint)
    except CheckpointError as error:
        raise ConfigError(Problem(where, error.message, f"try {key}.checkpoint=latest, or name another run")) from error


def _of_torchvision(config: Any, key: str, data: Any, description: DataDescription, task: str) -> TrainedModel:
    """Published weights bring the mean and std that they were trained with, and a head for classes of their own."""
    published = None if config.weights is None or is_file(config.weights) else config.weights
    chosen = Torchvision(option="torchvision", architecture=config.architecture, weights=published, args=config.args)
    model: Any = _built(lambda: implementation("model", chosen)(chosen, description), key)
    if published is None:
        _fill(model, config.weights, f"{key}.weights")
        return TrainedModel(model.eval(), description, task)
    unit = BYTE if data.split("train")[0][0].dtype == torch.uint8 else 1
    channels = description.input_shape[0]
    mean, std = (
        tuple(unit * v for v in (values if len(values) == channels else [sum(values) / len(values)] * channels))
        for values in model.trained_moments
    )
    theirs = replace(description, mean=mean, std=std)
    return TrainedModel(model.eval(), theirs, task, speaks=False)


def _built(build: Callable[[], nn.Module], key: str) -> nn.Module:
    """Problems of a model's keys are told by those of the teacher."""
    words = {
        "model.architecture=": f"{key}.teacher=torchvision:", "model.factory=": f"{key}.teacher=",
        "model.weights=": f"{key}.weights=", "model.args": f"{key}.args",
    }  # fmt: skip
    try:
        return build()
    except ConfigError as error:
        found = []
        for problem in error.problems:
            where, fix = problem.where, problem.fix
            for own, other in words.items():
                where, fix = where.replace(own, other), fix.replace(own, other)
            found.append(Problem(where, problem.why, fix))
        raise ConfigError(found) from error


def is_file(weights: str) -> bool:
    return "/" in weights or weights.endswith(".safetensors") or Path(weights).exists()


def _fill(model: nn.Module, weights: str, key: str) -> None:
    """Every tensor by its name, of its shape."""
    where, path = f"{key}={weights}", Path(weights).expanduser()
    if not path.is_file():
        raise ConfigError(Problem(where, "no such file", "name a .safetensors file"))
    if looks_pickled(path):
        raise SecurityError(pickle_problem(where, path))
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(Problem(where, f"not readable as safetensors: {error}", "copy the file again")) from error
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in tensors.items()}
    wrong = sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        there, here = (list(s[name]) if name in s else "nothing" for s in (found, wanted))
        why = f"{len(wrong)} of {len(wanted)} tensors do not fit; {name}: {there} in the file, {here} in the teacher"
        raise ConfigError(Problem(where, why, "name the weights of this teacher, trained on this kind of data"))
    model.load_state_dict(tensors)
