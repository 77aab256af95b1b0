"""Any product of replicate, shard, tensor, pipeline and context; fsdp, hsdp and others are presets of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import methodcaller
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from accel_cli.config.parts import load
from accel_cli.strategy import averaged, sharding
from accel_cli.strategy.base import Strategy, Whole
from accel_cli.world import World

COMPONENTS = {
    "tensor": "accel_cli.strategy.tensor:TensorParallel",
    "context": "accel_cli.strategy.context:ContextParallel",
    "pipeline": "accel_cli.strategy.pipeline:PipelineParallel",
}
"""What lays a whole model over one dimension, in the order in which they do. Torch's parts behind them take seconds to
import, so a run loads those that it uses."""


class Mesh(Strategy):
    """Ranks in a grid, outermost to innermost: pipeline x replicate x shard x context x tensor.

    Innermost ranks talk most and are nearest to each other, as in torchtitan (Liang et al. 2024, arXiv 2410.06511).
    """

    def __init__(self, config: Any, world: World) -> None:
        super().__init__(config, world)
        self.sizes: dict[str, int] = config.sizes(world.world_size)
        self.holds_whole = self.sizes["shard"] == 1 and (self.sizes["pipeline"] == 1 or self.sizes["tensor"] > 1)
        self.grid = self._grid()
        self.data = self._world("replicate", "shard")
        self.gradient = self._world("replicate", "shard", "context")
        self.losses = self._world("pipeline", "replicate", "shard", "context")
        self.stages, self.slices = self._world("pipeline"), self._world("tensor")
        self.components = {
            name: load(place)(config, self._submesh(name), world.device)
            for name, place in COMPONENTS.items()
            if self.sizes[name] > 1
        }
        self.context, self.pipeline = self.components.get("context"), self.components.get("pipeline")

    def place(
        self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any
    ) -> tuple[nn.Module, list[str]]:
        lines: list[str] = []
        for component in self.components.values():
            with _products_in_full():
                model, said = component.place(model, blocks, example, task)
            lines += said
            home = next(model.parameters()).device
            example = tree_map_only(Tensor, methodcaller("to", home), example)
        return model, lines

    @classmethod
    def check(cls, config: Any, world: World, whole: Whole, example: Any, task: Any) -> None:
        sizes = config.sizes(world.world_size)
        for name in ("tensor", "pipeline"):
            if sizes[name] > 1:
                with _products_in_full():
                    load(COMPONENTS[name]).check(config, sizes[name], *whole(), example, task)

    def _grid(self) -> DeviceMesh | None:
        """Of the dimensions that are more than one rank; a sharded tensor wants a shard dimension in any case."""
        kept = {name: size for name, size in self.sizes.items() if size > 1 or (name == "shard" and self._is_sharded)}
        if self.world.world_size == 1:
            return None
        return init_device_mesh(self.world.device.type, tuple(kept.values()), mesh_dim_names=tuple(kept))

    @property
    def _is_sharded(self) -> bool:
        """DDP knows no DTensors: replicas of sliced matrices are a shard of one rank, replicated."""
        sizes = self.sizes
        return sizes["shard"] > 1 or (sizes["tensor"] > 1 and sizes["replicate"] * sizes["context"] > 1)

    def _submesh(self, *names: str) -> DeviceMesh:
        """One dimension of those named."""
        assert self.grid is not None
        kept = tuple(name for name in names if name in (self.grid.mesh_dim_names or ()))
        return self.grid[kept[0]] if len(kept) == 1 else self.grid[kept]._flatten("_".join(kept))

    def _world(self, *names: str) -> World:
        size = math.prod(self.sizes[name] for name in names)
        if size == self.world.world_size:
            return self.world
        if size == 1:
            return World(0, 1, 0, 1, self.world.device)
        return self.world.part(self._submesh(*names).get_group())

    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        def average(part: nn.Module) -> nn.Module:
            return self._average(part, blocks, communication, precision)

        if self.pipeline is not None:
            self.pipeline.wrap(average)
            return model
        return average(model)

    def _average(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        """Average the gradients of a module over the ranks that hold the same part of the model."""
        if not self._is_sharded:
            return averaged.replicate(model, self.gradient, self.config, communication)
        assert self.grid is not None
        mesh = self._submesh("shard", "context")
        if self.sizes["replicate"] > 1:
            mesh = self.grid["replicate", *(mesh.mesh_dim_names or ())]
        held = set(model.modules())
        sharding.shard(model, [block for block in blocks if block in held], mesh, self.config, communication, precision)
        return model

    def gradient_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
        elif isinstance(model, DistributedDataParallel) and not last:
            return model.no_sync()
        return nullcontext()

    def forward_backward(self, training: Any, batches: Sequence[Any]) -> tuple[Tensor, float]:
        if self.pipeline is None:
            return super().forward_backward(training, batches)
        weight = training.weight(batches)
        factor = training.scaler.scale(self._scalar(self.gradient.world_size / weight))
        return self.pipeline.forward_backward(training, batches, factor), weight

    def loss(self, task: Any, model: nn.Module, batch: Any) -> Tensor:
        if self.context is None:
            return super().loss(task, model, batch)
        loss: Tensor = self.context.loss(task, model, batch)
        return loss

    def evaluate(self, task: Any, model: nn.Module, batch: Any) -> dict[str, tuple[Any, Any]]:
        component = self.context or self.pipeline
        if component is None:
            return super().evaluate(task, model, batch)
        sums: dict[str, tuple[Any, Any]] = component.evaluate(task, model, batch)
        return sums

    def norm(self, gradients: list[Tensor]) -> Tensor:
        total = sharding.total_squares(gradients, self.world.device)
        if self.pipeline is not None:
            self.stages.sum(total)
        return total.sqrt()

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """Weights gathered for a forward pass are given up afterwards: without a backward pass they would go stale."""
        wrapped = [model] if self.pipeline is None else self.pipeline.wrapped
        try:
            yield
        finally:
            for module in (module for part in wrapped for module in part.modules()):
                if isinstance(module, FSDPModule):
                    module.reshard()

    def share_buffers(self, model: nn.Module) -> None:
        averaged.share_buffers(map(sharding.local, model.buffers()), self.data)

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        gathered: dict[str, Tensor] = {}
        for name, value in tensors.items():
            full = sharding.whole(value)
            if self.holds_first:
                gathered[name] = full.detach().to("cpu", copy=True).contiguous()
        if self.pipeline is not None and self.holds_first:
            parts = self.stages.gather_to_first(gathered)
            gathered = {name: value for part in parts for name, value in part.items()}
        return gathered if self.world.is_first else {}

    @property
    def holds_first(self) -> bool:
        """Whether this rank is the first of those that hold a stage: rank 0 of its own and its likes."""
        return self.gradient.is_first and self.slices.is_first

    def scatter(self, whole: Tensor, like: Tensor) -> Tensor:
        return sharding.part(whole, like)

    def exposed_communication(self, model: nn.Module, clock: Any, seen: float) -> float:
        return seen + averaged.waited_seconds(model, clock)


@contextmanager
def _products_in_full() -> Iterator[None]:
    """What a part computes is compared with the whole: TF32 keeps three digits, too few to tell them apart."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions
