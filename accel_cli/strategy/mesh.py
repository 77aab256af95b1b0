"""Any product of replicate, shard, tensor, pipeline and context; fsdp, hsdp and others are presets of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from accel_cli.strategy import data_parallel, sharding
from accel_cli.strategy.base import Strategy
from accel_cli.world import World


class Mesh(Strategy):
    """Ranks in a grid, outermost to innermost: pipeline x replicate x shard x context x tensor.

    Innermost ranks talk most and are nearest to each other, as in torchtitan (Liang et al. 2024, arXiv 2410.06511).
    """

    def __init__(self, config: Any, world: World) -> None:
        super().__init__(config, world)
        self.sizes: dict[str, int] = config.sizes(world.world_size)
        self.holds_whole = self.sizes["shard"] == 1
        self.grid = self._grid()
        self.data = self._world("replicate", "shard")
        self.gradient = self._world("replicate", "shard", "context")
        self.losses = self._world("pipeline", "replicate", "shard", "context")

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
        if not self._is_sharded:
            return data_parallel.replicate(model, self.gradient, self.config, communication)
        assert self.grid is not None
        mesh = self._submesh("shard", "context")
        if self.sizes["replicate"] > 1:
            mesh = self.grid["replicate", *(mesh.mesh_dim_names or ())]
        sharding.shard(model, blocks, mesh, self.config, communication, precision)
        return model

    def gradient_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
        elif isinstance(model, DistributedDataParallel) and not last:
            return model.no_sync()
        return nullcontext()

    def norm(self, gradients: list[Tensor]) -> Tensor:
        return sharding.total_squares(gradients, self.world.device).sqrt()

    @contextmanager
    def evaluating(self, model: nn.Module) -> Iterator[None]:
        """Weights gathered for a forward pass are given up afterwards: without a backward pass they would go stale."""
        try:
            yield
        finally:
            for module in model.modules():
                if isinstance(module, FSDPModule):
                    module.reshard()

    def share_buffers(self, model: nn.Module) -> None:
        data_parallel.share_buffers(model, self.data)

    def gather(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        gathered: dict[str, Tensor] = {}
        for name, value in tensors.items():
            full = sharding.whole(value)
            if self.world.is_first:
                gathered[name] = full.detach().to("cpu", copy=True).contiguous()
        return gathered

    def scatter(self, whole: Tensor, like: Tensor) -> Tensor:
        return sharding.part(whole, like)

    def exposed_communication(self, model: nn.Module) -> float | None:
        return data_parallel.exposed_communication(model)
