"""Pipeline parallelism: ranks hold consecutive stages of the model and hand micro-batches on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, fx, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
)

from accel_cli.errors import AccelError
from accel_cli.strategy import stage_costs
from accel_cli.strategy.stage_module import Form, Held, Stage, merged
from accel_cli.strategy.stages import cut, inputs_of

SINGLE = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}
SEVERAL = {"interleaved": ScheduleInterleaved1F1B, "zero_bubble": ScheduleInterleavedZeroBubble}
"""Huang et al. 2018 (GPipe, arXiv 1811.06965) · Narayanan et al. 2021 (1F1B and interleaved, arXiv 2104.04473) ·
Qi et al. 2023 (zero bubble, arXiv 2401.10241)."""

Costs = Callable[[fx.Graph, nn.Module], list[float]]
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class PipelineParallel:
    """The stages of a model over the ranks of one mesh dimension; rank r of n holds the stages r, r + n, ...

    All ranks of the dimension are given the same batches: the first stage reads the inputs, the last one the targets.
    """

    def __init__(self, config: Any, mesh: DeviceMesh, device: torch.device) -> None:
        self.config, self.device = config, device
        self.group = mesh.get_group()
        self.rank, self.ranks = dist.get_rank(self.group), dist.get_world_size(self.group)
        self.stages: list[Stage] = []
        """Of this rank, in order; ``wrapped`` are the same with their gradients averaged over replicas."""
        self.wrapped: list[nn.Module] = []
        self._forms: list[list[Form]] = []
        self._runs: dict[tuple[int, int], Any] = {}
        self._loss: Callable[[Tensor, int], Tensor]
        self._names: list[str] | None = None

    def place(
        self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any
    ) -> tuple[nn.Module, list[str]]:
        """(this rank's stages as one module, lines for the user). Raises ConfigError, as ``stages.cut`` does."""
        inputs = inputs_of(task, example)
        costs = _measured_once if self.config.balance == "measured" else stage_costs.counted
        stages = staged(self.config, self.ranks, model, blocks, inputs, costs)
        self._forms, self._sample = [stage.forms for stage in stages], inputs.shape[1:]
        self.stages = stages[self.rank :: self.ranks]
        for stage in self.stages:
            stage.detached = True
            stage.to(self.device)
        self.wrapped = list(self.stages)
        self._held = merged(self.stages)
        shown = " + ".join(f"{sum(p.numel() for p in stage.parameters()):,}" for stage in stages)
        lines = [f"pipeline: {len(stages)} stages of {shown} parameters"]
        if any(isinstance(module, BATCH_NORMS) for stage in stages for module in stage.modules()):
            lines.append("pipeline: a batch norm in training takes its statistics from one micro-batch")
        return self._held, lines

    @staticmethod
    def check(config: Any, ranks: int, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any) -> None:
        """Raise ConfigError where ``place`` would."""
        staged(config, ranks, model, blocks, inputs_of(task, example), stage_costs.counted)

    def wrap(self, average: Callable[[nn.Module], nn.Module]) -> None:
        """Have the gradients of every stage averaged, each by itself."""
        self.wrapped = [average(stage) for stage in self.stages]
        if isinstance(self._held, Held):
            self._held.refresh()

    def forward_backward(self, training: Any, batches: Sequence[Any], factor: Tensor) -> Tensor:
        """Gradients of ``factor`` times the loss of one global batch. Returns this rank's sum of the loss, 0-dim.

        Only the last stage has one: elsewhere it is zero.
        """
        precision, task = training.precision, training.task
        total = torch.zeros((), device=self.device)

        def loss_of(output: Tensor, index: int) -> Tensor:
            with precision.autocast():
                loss: Tensor = task.loss(_gives(output), batches[index])[0].float()
            total.add_(loss.detach())
            return loss * factor

        for stage in self.stages:
            stage.surround = precision.autocast
        self._loss = loss_of
        given = [self._inputs(task, batch) for batch in batches]
        count = len(batches)
        # A micro-batch is known by its number: its targets may be of any form.
        numbers = torch.arange(count)
        inputs = (torch.cat(given),) if self.rank == 0 else ()
        schedule = self._runs.get((count, len(given[0]))) or self._schedule(count, given[0])
        schedule.step(*inputs, target=numbers if self._has_last else None, return_outputs=False)
        training.clock.mark("backward")
        return total

    def _inputs(self, task: Any, batch: Any) -> Tensor:
        inputs: Tensor = inputs_of(task, batch)
        if inputs.shape[1:] != self._sample:
            shapes = f"{list(inputs.shape[1:])}, where the first had {list(self._sample)}"
            raise AccelError(f"a sample has the shape {shapes}: stages wait for one size", "pad to one size")
        return inputs

    @property
    def _has_last(self) -> bool:
        return self.rank == self.ranks - 1

    def _schedule(self, count: int, inputs: Tensor) -> Any:
        """The schedule for ``count`` micro-batches, and the tensors that it passes on, as large as ``inputs`` ask."""
        size = len(inputs)
        stages: list[Any] = [
            PipelineStage(
                wrapped,
                index,
                len(self._forms),
                self.device,
                input_args=self._empty(index - 1, size) if index else (inputs.to("meta"),),
                output_args=self._empty(index, size),
                group=self.group,
            )
            for index, wrapped in zip(range(self.rank, len(self._forms), self.ranks), self.wrapped, strict=True)
        ]

        def loss(output: Tensor, number: Tensor) -> Tensor:
            return self._loss(output, int(number))

        if self.config.schedule in SINGLE:
            schedule: Any = SINGLE[self.config.schedule](stages[0], count, loss_fn=loss, scale_grads=False)
        else:
            schedule = SEVERAL[self.config.schedule](stages, count, loss_fn=loss, scale_grads=False)
        self._runs[count, size] = schedule
        return schedule

    def _empty(self, index: int, size: int) -> tuple[Tensor, ...]:
        """What stage ``index`` gives for ``size`` samples, without storage."""
        return tuple(
            torch.empty(form.shape(size), dtype=form.dtype, device="meta", requires_grad=form.dtype.is_floating_point)
            for form in self._forms[index]
        )

    @torch.no_grad()
    def evaluate(self, task: Any, model: nn.Module, batch: Any) -> dict[str, tuple[Any, Any]]:
        """The sums of ``task.evaluate`` on the last stage; the same names with nothing in them on the others."""
        inputs, last = self._inputs(task, batch), len(self._forms) - 1
        size = len(inputs)
        for index, stage in zip(range(self.rank, last + 1, self.ranks), self.stages, strict=True):
            outputs = stage(*(self._receive(index - 1, size) if index else (inputs,)))
            if index == last:
                sums: dict[str, tuple[Any, Any]] = task.evaluate(_gives(outputs), batch)
                return sums
            for output in outputs if isinstance(outputs, tuple) else (outputs,):
                dist.send(output, group=self.group, group_dst=(self.rank + 1) % self.ranks)
        if self._names is None:
            (form,) = self._forms[last]
            self._names = list(task.evaluate(_gives(torch.zeros(form.shape(size), device=self.device)), batch))
        return dict.fromkeys(self._names, (0.0, 0.0))

    def _receive(self, index: int, size: int) -> list[Tensor]:
        received = [torch.empty(f.shape(size), dtype=f.dtype, device=self.device) for f in self._forms[index]]
        for tensor in received:
            dist.recv(tensor, group=self.group, group_src=(self.rank - 1) % self.ranks)
        return received


def _gives(output: Tensor) -> Callable[..., Tensor]:
    """Stands for a model whose output is known already: a task calls it as it would the model."""
    return lambda *inputs, **named: output


def staged(
    config: Any, ranks: int, model: nn.Module, blocks: Sequence[nn.Module], inputs: Any, costs: Costs
) -> list[Stage]:
    """The stages of all ranks."""
    stated = config.stages_per_rank
    each = (2 if config.schedule == "interleaved" else 1) if stated == "auto" else int(stated)

    def fewer(most: int) -> str:
        if most // each > 1:
            key = "launch.processes" if config.option == "pipeline" else "strategy.pipeline"
            return f"try {key}={most // each}"
        if most >= ranks:
            return "try strategy.schedule=1f1b strategy.stages_per_rank=auto"
        return "try strategy=fsdp"

    where = f"strategy={config.option}"
    return cut(model, inputs, ranks * each, where=where, blocks=blocks, names=config.cut, costs=costs, fewer=fewer)


def _measured_once(graph: fx.Graph, model: nn.Module) -> list[float]:
    """What rank 0 has measured, so that all ranks cut alike."""
    found = [stage_costs.measured(graph, model)]
    dist.broadcast_object_list(found, src=0)
    return found[0]
