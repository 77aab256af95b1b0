"""Parameters dealt over ranks: sharding them, their norms, whole tensors of them and parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from accel_cli.strategy.base import squares

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds; all of a plain one."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def total_squares(gradients: Iterable[Tensor], device: torch.device) -> Tensor:
    """The sum of all squares over all ranks that share the gradients, 0-dim; a collective.

    Every element counts once: sums are added over the mesh dimensions that a gradient is cut along.
    """
    kept: dict[tuple[dist.ProcessGroup, ...], list[Tensor]] = {}
    for gradient in gradients:
        kept.setdefault(cut_over(gradient), []).append(local(gradient))
    total = torch.zeros((), device=device)
    for groups, parts in kept.items():
        own = squares([part for part in parts if part.numel()], device)
        for group in groups:
            dist.all_reduce(own, group=group)
        total += own
    return total


def cut_over(tensor: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """The groups of ranks that a tensor's elements are dealt over."""
    if not isinstance(tensor, DTensor):
        return ()
    mesh = tensor.device_mesh
    return tuple(mesh.get_group(n) for n, p in enumerate(tensor.placements) if not p.is_replicate())


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank that has a part of it; a collective for a DTensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part(full: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a whole tensor, a DTensor where ``like`` is one; no communication."""
    if not isinstance(like, DTensor):
        return full
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    own = full[tuple(slice(begin, begin + size) for begin, size in zip(offset, shape, strict=True))]
    return DTensor.from_local(
        own.to(like.device).contiguous(),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def shard(
    model: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh, config: Any, communication: Any, precision: Any
) -> None:
    """Deal every parameter over a mesh by FSDP2, in place: block by block, the rest as one (Zhao et al. 2023,
    arXiv 2304.11277; Rajbhandari et al. 2019, arXiv 1910.02054).

    ``mesh`` is (shard) or (replicate, shard).
    """
    on_host = mesh.device_type == "cpu"
    automatic = None if on_host else precision.dtype
    dtype = automatic if config.parameter_dtype == "auto" else DTYPES[config.parameter_dtype]
    lowered = dtype not in (None, torch.float32)
    reduce_dtype = communication.reduce_dtype or (torch.float32 if lowered else None)
    policy = MixedPrecisionPolicy(param_dtype=dtype if lowered else None, reduce_dtype=reduce_dtype)
    offload = CPUOffloadPolicy(pin_memory=not on_host) if config.offload == "cpu" else OffloadPolicy()
    for module in (*blocks, model):
        for part in (*of_another_type(module), module):
            fully_shard(
                part,
                mesh=mesh,
                reshard_after_forward=config.reshard_after_forward,
                mp_policy=policy,
                offload_policy=offload,
            )


def of_another_type(module: nn.Module) -> list[nn.Module]:
    """The modules inside whose parameters are of another type than most: FSDP2 takes only one type together."""
    dealt = {id(part) for other in module.modules() if isinstance(other, FSDPModule) for part in other.modules()}
    held = {part: list(part.parameters(recurse=False)) for part in module.modules() if id(part) not in dealt}
    count = Counter[torch.dtype]()
    for parameter in (p for own in held.values() for p in own):
        count[parameter.dtype] += parameter.numel()
    most = count.most_common(1)
    return [part for part, own in held.items() if part is not module and any(p.dtype != most[0][0] for p in own)]
