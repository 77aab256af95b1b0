"""What every optimizer shares: rates of groups, the choice of kernel, skipping a non-finite update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from accel_cli.errors import ConfigError, Problem

FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}
FOREACH_DEVICES = {"cuda", "xpu"}
"""Elsewhere foreach runs a loop over tensors too, with more temporaries."""
FUSED_SHARDED = {"_fused_adam_", "_fused_adamw_"}
"""The fused kernels that DTensor can place; for the others torch raises NotImplementedError (2.15)."""
SMALL = 10_000
"""Elements of a tensor of which the calls cost more than the arithmetic."""
HEEDS_FOUND_INF = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad)
FOUND_INF_DEVICES = {"cpu", "cuda"}
"""Where the fused kernels were seen, or are documented, to leave everything as it was when found_inf is 1."""


def with_rates(groups: Iterable[dict[str, Any]], learning_rate: float) -> list[dict[str, Any]]:
    """The groups with the learning rate that each begins with."""
    return [{**group, "lr": learning_rate * group["rate"]} for group in groups]


def kernel(
    config: Any, operator: str | None, groups: Iterable[dict[str, Any]], device: torch.device
) -> dict[str, bool]:
    """How torch is to update these parameters, as keyword arguments of the optimizer; ``auto`` is the fastest way.

    ``operator`` is the fused in-place operator's name in aten (``_fused_adamw_``), None where there is none. Raises
    ConfigError where ``config.kernel`` is fused and these parameters have no such kernel.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    types = {device.type if p.device.type == "meta" else p.device.type for p in parameters}
    if config.kernel in ("loop", "foreach"):
        return {"foreach": config.kernel == "foreach"}
    if operator and _has_fused(operator, parameters, types):
        return {"fused": True}
    if config.kernel == "fused":
        why = f"torch has no fused {config.option} for these parameters on {', '.join(sorted(types))}"
        raise ConfigError(Problem("optimizer.kernel=fused", why, "try optimizer.kernel=auto"))
    return {"foreach": types <= FOREACH_DEVICES}


def walked(config: Any, groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups of mostly small tensors on a CPU are walked by foreach, others by a loop; for ``kernel=auto``.

    For optimizers without a fused kernel. Of small tensors the calls cost most, and foreach makes fewer; of large ones
    its whole lists of temporaries leave the cache. See benchmarks/optimizer.py.
    """
    found = list(groups)
    if config.kernel != "auto":
        return found
    return [{**group, "foreach": True} if _mostly_small(group["params"]) else group for group in found]


def _mostly_small(parameters: list[Tensor]) -> bool:
    if any(p.device.type != "cpu" or is_sharded(p) for p in parameters):
        return False
    return 2 * sum(p.numel() <= SMALL for p in parameters) > len(parameters)


def _has_fused(operator: str, parameters: list[Tensor], types: set[str]) -> bool:
    if any(is_sharded(p) for p in parameters) and operator not in FUSED_SHARDED:
        return False
    return all(p.is_floating_point() for p in parameters) and all(
        kind in FUSED_DEVICES and torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", kind.upper())
        for kind in types
    )


def is_sharded(parameter: Tensor) -> bool:
    """Whether it is a DTensor: kernels over many tensors refuse a mixture of the two kinds."""
    return hasattr(parameter, "device_mesh")


def laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A tensor of the parameter's shape, in the parameter's memory layout and on its device.

    For state read from a file that keeps no strides: fused kernels on a CPU walk parameter and state by address,
    so that a channels_last weight with contiguous state gets wrong updates without an error (torch 2.15).
    """
    if value.stride() == parameter.stride() and value.device == parameter.device:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def start_momentum(optimizer: torch.optim.SGD) -> torch.optim.SGD:
    """Give SGD its momentum buffers, all zero, before the first step; the updates stay the same bits.

    Fused SGD allocates them uninitialised at the first step. If found_inf skips that step, it takes what the
    memory held for momentum from then on (torch 2.15).
    """
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def supports_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``optimizer.found_inf``, a 0-dim float tensor, skips the update on the device when it is 1.

    Without it, skipping costs a look from the host at every step.
    """
    parts = getattr(optimizer, "parts", (optimizer,))
    return all(_heeds_found_inf(part) for part in parts)


def _heeds_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    # A subclass may have its own step, which need not look.
    if type(optimizer) not in HEEDS_FOUND_INF:
        return False
    return all(
        group.get("fused") is True
        and all(parameter.device.type in FOUND_INF_DEVICES for parameter in group["params"])
        and (not group.get("momentum") or all(_has_momentum(optimizer, p) for p in group["params"]))
        for group in optimizer.param_groups
    )


def _has_momentum(optimizer: torch.optim.Optimizer, parameter: Tensor) -> bool:
    return parameter in optimizer.state and optimizer.state[parameter].get("momentum_buffer") is not None
