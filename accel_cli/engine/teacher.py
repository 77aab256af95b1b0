"""A trained run's model as a teacher: what it gives for the batches of another run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.engine.trained import TrainedModel


class Teacher:
    """It reads inputs standardised by its own mean and std, whatever the run's are; never trained."""

    def __init__(self, found: TrainedModel, *, description: Any, task: Any, precision: Any, device: torch.device):
        """``description`` and ``task`` are the run's."""
        self.model = found.model.to(device).requires_grad_(False)
        self.description = found.description
        self.speaks = found.speaks
        self._task = task
        self._precision = precision
        self._width = description.classes or description.vocabulary
        self._scale, self._shift = _between(description, found.description, device)

    def of_inputs(self, inputs: Tensor) -> Tensor:
        """Outputs [n, ...] of a batch's inputs [n, ...]; of classes and tokens no more than there are."""
        with torch.no_grad(), self._precision.autocast():
            return self.of_batch((inputs, None))

    def of_batch(self, batch: Any) -> Tensor:
        inputs = batch[0] if self._scale is None else batch[0] * self._scale + self._shift
        output: Tensor = self._task.forward(self.model, (inputs, batch[1]))
        return output if self._width is None else output[..., : self._width]


def _between(ours: Any, theirs: Any, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """(scale, shift) from our standardised inputs to theirs; None where they are the same."""
    if (ours.mean, ours.std) == (theirs.mean, theirs.std) or ours.input not in ("image", "vector"):
        return None, None
    shape = (1, -1, 1, 1) if ours.input == "image" else (1, -1)
    mean, std = _moments(ours)
    their_mean, their_std = _moments(theirs)
    scale, shift = std / their_std, (mean - their_mean) / their_std
    return scale.float().reshape(shape).to(device), shift.float().reshape(shape).to(device)


def _moments(description: Any) -> tuple[Tensor, Tensor]:
    """As the loader takes them: a constant feature is only shifted."""
    if description.mean is None or description.std is None:
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    std = [value or 1.0 for value in description.std]
    return torch.tensor(description.mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
