"""Orthogonalised momentum on hidden weight matrices, AdamW on everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.errors import ConfigError, Problem
from accel_cli.optimizer.base import kernel, laid_out_as, with_rates
from accel_cli.optimizer.combined import Combined
from accel_cli.optimizer.hidden import flat, memory_order


class Muon(torch.optim.Muon):
    """torch's Muon, which also takes convolution filters, as matrices of [out, everything else].

    State: ``momentum_buffer`` in the filter's own shape.
    """

    def __init__(self, groups: list[dict[str, Any]], **defaults: Any) -> None:
        # torch's constructor refuses all but two dimensions; its step needs only that _init_group gives two.
        torch.optim.Optimizer.__init__(self, groups, defaults)

    def _init_group(
        self,
        group: Any,
        params_with_grad: list[Tensor],
        grads: list[Tensor],
        muon_momentum_bufs: list[Tensor],
    ) -> bool:
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            # Where its flat form were a copy, updates would be lost.
            state["momentum_buffer"] = laid_out_as(parameter, state["momentum_buffer"])
            order = memory_order(parameter)
            params_with_grad.append(flat(parameter, order))
            grads.append(flat(parameter.grad, order))
            muon_momentum_bufs.append(flat(state["momentum_buffer"], order))
        return False


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
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            nesterov=config.nesterov,
            ns_coefficients=(3.4445, -4.775, 2.0315),
            eps=1e-7,
            ns_steps=config.newton_schulz_steps,
            adjust_lr_fn=config.rate_adjustment,
        )
    ]
    if rest:
        parts.append(
            torch.optim.AdamW(
                with_rates(rest, config.learning_rate),
                lr=config.learning_rate * config.adamw_rate,
                betas=(config.beta1, config.beta2),
                eps=config.epsilon,
                **kernel("_fused_adamw_", rest, device),
            )
        )
    return Combined(parts)
