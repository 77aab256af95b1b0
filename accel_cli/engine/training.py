"""Training: the live objects of one run, as setup leaves them and the loop uses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from accel_cli.config.run import Run
from accel_cli.config.work import Work
from accel_cli.description import DataDescription
from accel_cli.engine.average import Average
from accel_cli.engine.borders import Start
from accel_cli.engine.clock import Clock
from accel_cli.world import World


@dataclass(frozen=True)
class Whole:
    """The whole model, of which a rank may hold a part: what is in its checkpoint, and what it counts."""

    shapes: dict[str, tuple[torch.Size, torch.dtype]]
    parameters: int
    trained: int
    trained_bytes: int

    @staticmethod
    def of(model: nn.Module) -> Whole:
        trained = [p for p in model.parameters() if p.requires_grad]
        return Whole(
            shapes={name: (value.shape, value.dtype) for name, value in model.state_dict().items()},
            parameters=sum(p.numel() for p in model.parameters()),
            trained=sum(p.numel() for p in trained),
            trained_bytes=sum(p.numel() * p.element_size() for p in trained),
        )

    @property
    def bytes(self) -> int:
        return sum(shape.numel() * dtype.itemsize for shape, dtype in self.shapes.values())


@dataclass(kw_only=True)
class Training:
    """``model`` is what forward is called on; ``bare`` what this rank holds of it, under the user's names."""

    run: Run
    work: Work
    world: World
    steps: int
    description: DataDescription
    whole: Whole

    hardware: Any
    strategy: Any
    communication: Any
    precision: Any
    compiler: Any
    scaler: Any
    task: Any
    data: Any
    loader: Any
    transfer: Any
    passes: dict[str, Any]
    start: Start
    """What this phase of training began with."""
    border: int
    """The step at which it ends: the model's structure changes there, or the run is over."""
    stopping: Any
    schedule: Any

    model: nn.Module
    bare: nn.Module
    average: Average
    optimizer: Optimizer
    fused: bool
    learning_rate: float
    parameters: Sequence[nn.Parameter]
    frozen: Sequence[nn.Module]

    clock: Clock = field(default_factory=Clock)
    after_step: tuple[Callable[[int], None], ...] = ()
    step: int = 0

    @property
    def parts(self) -> dict[str, Any]:
        """All that may change the model's structure."""
        return {"transfer": self.transfer, **self.passes}

    @property
    def samples(self) -> int:
        return self.step * self.work.global_batch

    @property
    def epoch(self) -> float | None:
        size = self.description.train_samples
        return None if not size else self.samples / size

    def weight(self, batches: Sequence[Any]) -> float:
        """The weight of the global batch, known before forward: of all micro-batches, of all ranks.

        Where ranks step alone it is this rank's, as if all had the same. 1 where nothing counts: losses are 0 then.
        """
        own = sum(self.task.weight(batch) for batch in batches)
        data = self.strategy.data
        if not self.task.varying_weight or data.world_size == 1 or self.strategy.steps_alone:
            return own * data.world_size or 1.0
        return float(data.sum(torch.tensor(own, dtype=torch.float32, device=data.device))) or 1.0

    def train_mode(self) -> None:
        """Training behaviour everywhere but in the frozen parts."""
        self.model.train()
        for module in self.frozen:
            module.eval()
