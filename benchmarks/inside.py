"""Plugin by which the real ``accel train`` runs a benchmark's model on a benchmark's samples, and marks its window.

Named by --plugin: the rank imports it when it calls the factories, and from then on its loop has one more hook after
each step. Everything else is what the command does by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import arms
import torch
from torch import Tensor, nn

from accel_cli.engine import phases


class Samples:
    """Tensors as accel gathers them: a whole batch at once."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.targets.nbytes

    def to(self, device: torch.device) -> Samples:
        return Samples(self.inputs.to(device), self.targets.to(device))

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.inputs.index_select(0, indices), self.targets.index_select(0, indices)


def model(folder: str, first: int, last: int) -> nn.Module:
    """The model that lies in ``folder``, given.pt; its steps after ``first`` and up to ``last`` are measured."""
    mark(Path(folder) / "window.json", first, last)
    built: nn.Module = given(folder)["model"]
    return built


def small(place: str) -> nn.Module:
    """784-128-10, as benchmarks/launch_arm.py builds it; the end of the first step is marked in ``place``."""
    mark(Path(place), 0, 1)
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))


def data(folder: str, split: str) -> Samples:
    found = given(folder)
    count = len(found["inputs"]) if split == "train" else 256
    return Samples(found["inputs"][:count], found["targets"][:count])


def given(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(Path(folder).parent / "given.pt", weights_only=False)
    return found


def mark(place: Path, first: int, last: int) -> None:
    """Let the rank's loop keep a window, and with it the seconds that each phase took between its ends."""
    train: Any = phases.train
    window = arms.window(place, first, last)

    def watched(training: Any, *rest: Any) -> str:
        if not training.world.is_first:
            status: str = train(training, *rest)
            return status
        seconds: list[dict[str, float]] = []
        window.wait = training.hardware.synchronize

        def after(step: int) -> None:
            if step + 1 in (first, last):
                seconds.append(dict(training.clock.seconds))
                window.more["phases"] = {name: seconds[-1][name] - seconds[0][name] for name in seconds[0]}
            window.after(step)

        if first == 0:  # from the command's start: all CPU seconds so far count
            window.begin()
            window.cpu_before = 0.0
        window.more |= {"parameters": training.whole.parameters, "ranks": training.world.world_size}
        training.after_step = (*training.after_step, after)
        return train(training, *rest)

    phases.train = watched  # type: ignore[assignment]
