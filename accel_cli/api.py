"""accel from Python: ``train`` a run as the command line does, ``load`` the model that came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accel_cli.config import factory
from accel_cli.config.plan import plan
from accel_cli.description import DataDescription
from accel_cli.engine.folder import in_use
from accel_cli.engine.trained import trained_model
from accel_cli.errors import AccelError, ConfigError, Problem
from accel_cli.launch.begin import launch, open_folder
from accel_cli.launch.front import Front
from accel_cli.launch.terminal import Quiet
from accel_cli.loader.finish import Finish


def train(
    overrides: Sequence[str] = (),
    *,
    run_dir: str | Path | None = None,
    plugins: Sequence[str] = (),
    config_dirs: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Train one run and return its summary (summary.json's keys, and ``run``, its folder).

    Takes the command line's own words: ``train(["model=mlp", "train.epochs=3"])``. The ranks are processes of their
    own; the caller is never forked. Raises ConfigError before anything starts, and AccelError where the run fails; a
    run that a signal ended returns with status ``interrupted``.
    """
    started = time.time()
    folders = [Path(folder) for folder in config_dirs]
    planned = plan(list(overrides), config_dirs=folders, plugins=plugins)
    if run_dir is not None and (Path(run_dir) / "run.yaml").exists():
        raise ConfigError(Problem(f"run_dir={run_dir}", "holds a run", "choose another folder"))
    folder = open_folder(planned, Path(run_dir) if run_dir else None, ["train", *overrides])
    front = Front()
    try:
        with in_use(folder):
            outcome = launch(front, folder, planned, Quiet(), started=started)
    finally:
        front.close()
    ended = outcome if outcome.export is None else outcome.export
    if (failure := outcome.failure or ended.failure) is not None:
        if failure.problems:
            raise ConfigError(Problem(**problem) for problem in failure.problems)
        error = AccelError(failure.message, failure.fix)
        error.exit_code = outcome.exit_code or ended.exit_code
        raise error
    return {**json.loads((folder / "summary.json").read_text()), "run": str(folder)}


class Trained(nn.Module):
    """A trained model that takes inputs as the data set stores them.

    ``model`` is the model itself, ``description`` what it was trained on.
    """

    def __init__(self, model: nn.Module, description: DataDescription) -> None:
        super().__init__()
        self.model = model
        self.description = description
        self._finish = Finish(description, torch.device("cpu"))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Images [n, channels, height, width], vectors [n, features] or tokens [n, length], as the data stores them."""
        nothing = torch.zeros(len(inputs), dtype=torch.int64)
        finished, _ = self._finish((inputs, nothing), nothing, nothing)
        output = self.model(finished)
        logits: torch.Tensor = getattr(output, "logits", output)
        return logits

    @torch.no_grad()
    def predict(self, inputs: torch.Tensor) -> list[Any]:
        """The class of each sample, by name where names are known; for numbers, the numbers."""
        output = self(inputs)
        if self.description.target != "class":
            return list(output.tolist())
        names = self.description.class_names
        return [names[i] if names else i for i in output.argmax(-1).tolist()]


def load(run: str | Path, *, which: str = "latest", plugins: Sequence[str] = ()) -> Trained:
    """The trained model of a run folder, in evaluation mode on the CPU.

    ``which`` is ``latest``, ``best`` or a checkpoint's name. A model of your own needs its ``plugins`` named again: a
    checkpoint cannot grant itself the right to import code. Raises CheckpointError where no checkpoint is whole.
    """
    factory.grant(plugins)
    found = trained_model(Path(run), which)
    return Trained(found.model, found.description).eval()
