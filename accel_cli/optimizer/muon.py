"""Orthogonalised momentum on hidden weight matrices, AdamW on everything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from accel_cli.errors import ConfigError, Problem
from accel_cli.optimizer.base import is_sharded, kernel, with_rates
from accel_cli.optimizer.combined import Combined
from accel_cli.optimizer.own import Own

COEFFICIENTS = (3.4445, -4.775, 2.0315)
TINY = 1e-7
STACK = 1 << 24
"""Most numbers in one stack of matrices, which is a copy of them in bf16."""


class Muon(Own):
    """torch's Muon, bit for bit, with matrices of one shape orthogonalised together; filters are [out, all else].

    State: ``momentum_buffer`` in the filter's own shape.
    """

    buffers = ("momentum_buffer",)

    def update(self, group: dict[str, Any], parameters: list[Tensor], state: dict[str, Any]) -> dict[str, float]:
        updates = []
        for parameter in parameters:
            gradient, momentum = parameter.grad, self.state[parameter]["momentum_buffer"]
            assert gradient is not None
            momentum.lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            updates.append(update.flatten(1))
        for parameter, update in zip(parameters, orthogonal(updates, group["ns_steps"]), strict=True):
            rows, columns = update.shape
            original = group["rate_adjustment"] == "original"
            factor = math.sqrt(max(1, rows / columns)) if original else 0.2 * math.sqrt(max(rows, columns))
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update.view(parameter.shape), alpha=-group["lr"] * factor)
        return {}


def orthogonal(matrices: Sequence[Tensor], steps: int) -> list[Tensor]:
    """Each matrix with its singular values near 1, in bf16: those of one shape in stacks, sharded ones alone."""
    found: list[Tensor] = list(matrices)
    alike: dict[tuple[Any, ...], list[int]] = {}
    for index, matrix in enumerate(matrices):
        key = (index,) if is_sharded(matrix) else (matrix.shape, matrix.device)
        alike.setdefault(key, []).append(index)
    for indices in alike.values():
        most = max(1, STACK // max(1, matrices[indices[0]].numel()))
        for first in range(0, len(indices), most):
            some = indices[first : first + most]
            if len(some) == 1:
                found[some[0]] = newton_schulz(matrices[some[0]].bfloat16(), steps)
                continue
            stacked = newton_schulz(torch.stack([matrices[index].bfloat16() for index in some]), steps)
            for index, matrix in zip(some, stacked.unbind(), strict=True):
                found[index] = matrix
    return found


def newton_schulz(matrices: Tensor, steps: int) -> Tensor:
    """The quintic iteration of Jordan et al. (2024) on [rows, columns] or on a stack of such; see torch.optim.Muon."""
    a, b, c = COEFFICIENTS
    product = torch.addmm if matrices.dim() == 2 else torch.baddbmm
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices
    norm = x.norm() if x.dim() == 2 else x.norm(dim=(-2, -1), keepdim=True)
    x = x / norm.clamp(min=TINY)
    for _ in range(steps):
        gram = x @ x.mT
        x = product(x, product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def build(config: Any, groups: list[dict[str, Any]], device: torch.device) -> Combined:
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) and AdamW over the rest.

    Raises ConfigError if the model has no hidden weight matrix.
    """
    matrices = [group for group in groups if group["matrix"]]
    rest = [{**g, "rate": g["rate"] * config.adamw_rate} for g in groups if not g["matrix"]]
    if not matrices:
        raise ConfigError(
            Problem("optimizer=muon", "the model has no hidden weight matrix to train", "try optimizer=adamw")
        )
    parts: list[torch.optim.Optimizer] = [
        Muon(
            with_rates(matrices, config.learning_rate),
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=config.nesterov,
            ns_steps=config.newton_schulz_steps,
            rate_adjustment=config.rate_adjustment,
        )
    ]
    if rest:
        parts.append(
            torch.optim.AdamW(
                with_rates(rest, config.learning_rate),
                lr=config.learning_rate * config.adamw_rate,
                betas=(config.beta1, config.beta2),
                eps=config.epsilon,
                **kernel(config, "_fused_adamw_", rest, device),
            )
        )
    return Combined(parts)
