"""Activation checkpointing: blocks forget what they computed in forward and compute it again in backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from accel_cli.errors import ConfigError, Problem

aten = torch.ops.aten
KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.convolution.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
}
"""What ``selective`` keeps: the products, dear to compute; the cheap rest is computed again."""


def check(blocks: Sequence[nn.Module], mode: str) -> None:
    """Raise ConfigError where a model has no blocks that could recompute."""
    if mode != "none" and not blocks:
        where = f"train.activation_checkpointing={mode}"
        why = "the model has no list of like parts to compute again"
        raise ConfigError(Problem(where, why, "name some: train.blocks=[encoder.*]"))


def apply(blocks: Sequence[nn.Module], mode: str) -> None:
    """Make the blocks recompute (Chen et al. 2016, arXiv 1604.06174), in place: names and results stay the same.

    ``mode`` is ``none``, ``blocks`` (keep a block's input only) or ``selective`` (keep its products too).
    """
    if mode == "none":
        return
    contexts: dict[str, Any] = {}
    if mode == "selective":
        contexts["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)
    for block in blocks:
        block.forward = _recomputed(block.forward, contexts)  # type: ignore[method-assign]


def _recomputed(forward: Callable[..., Any], contexts: dict[str, Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **named: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*inputs, **named)
        return checkpoint(forward, *inputs, use_reentrant=False, **contexts, **named)

    return run


def _policy(context: Any, operator: Any, *inputs: Any, **named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in KEPT else CheckpointPolicy.PREFER_RECOMPUTE
