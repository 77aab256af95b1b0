"""Semi-structured pruning: of every four weights along the inputs the two smallest become zero."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured
from torch.utils._pytree import tree_map

from accel_cli.compression.masked import Masked, local
from accel_cli.config.schema.compression import Prune24 as Config
from accel_cli.structure import Border

ROUNDS = 31
SAMPLES = 512
"""Of the batch that is timed: sparse kernels are for products large enough to wait for arithmetic."""
LEAST = (32, 64)
"""Rows, and inputs, that torch's sparse kernels take a multiple of in fp16."""


class Prune24(Masked):
    """The pattern of NVIDIA's sparse tensor cores (Mishra et al. 2021, arXiv 2104.08378): chosen once, then trained on.

    Of convolutions the inputs are their input channels. Rows stay whole under fsdp, so a rank chooses by itself.
    """

    config: Config
    masked = "weights whose inputs are a multiple of 4"

    def times(self, steps: int) -> dict[int, float]:
        return {max(1, round(self.config.start * steps)): 0.5}

    def takes(self, weight: Tensor) -> bool:
        return weight.dim() >= 2 and weight.shape[1] % 4 == 0

    def choose(self, weights: Sequence[Tensor], share: float) -> list[Tensor]:
        return [smallest_two(local(weight)) for weight in weights]

    def speed(self, model: nn.Module, border: Border) -> tuple[tuple[str, ...], dict[str, Any]]:
        device = next(model.parameters()).device
        if device.type != "cuda":
            return (f"no speed is to be had on {device.type}: sparse tensor cores are NVIDIA's, from Ampere on",), {}
        if torch.cuda.get_device_capability(device) < (8, 0):
            return ("no speed is to be had: this GPU has no sparse tensor cores (they begin with Ampere)",), {}
        return timed(model, border)


def smallest_two(weight: Tensor) -> Tensor:
    """Bool, True at two of every four numbers along dimension 1; of equals the first."""
    grouped = weight.abs().movedim(1, -1)
    fours = grouped.reshape(*grouped.shape[:-1], -1, 4)
    order = fours.argsort(dim=-1, stable=True)
    chosen = torch.zeros_like(fours, dtype=torch.bool).scatter_(-1, order[..., :2], True)
    return chosen.reshape(grouped.shape).movedim(-1, 1)


def timed(model: nn.Module, border: Border) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Milliseconds of a forward pass in fp16, dense and with sparse Linear weights; what is saved stays dense."""
    batch = next(iter(border.batches(SAMPLES)))
    batch = tree_map(lambda x: x.half() if isinstance(x, Tensor) and x.is_floating_point() else x, batch)
    dense = copy.deepcopy(model).half().eval()
    sparse = copy.deepcopy(dense)
    fitting = [m for m in sparse.modules() if isinstance(m, nn.Linear) and is_two_of_four(m.weight)]
    if not fitting:
        return ("no Linear weight has rows and inputs that sparse kernels take: no speed is claimed",), {}
    for module in fitting:
        module.weight = nn.Parameter(to_sparse_semi_structured(module.weight.detach()), requires_grad=False)
    with torch.no_grad():
        calls = [lambda m=m: border.task.forward(m, batch) for m in (dense, sparse)]  # type: ignore[misc]
        before, after, times = against(*calls)
    facts = {"samples": len(batch[0]) if isinstance(batch, (tuple, list)) else SAMPLES, "sparse_layers": len(fitting)}
    said = f"{len(fitting)} Linear layers through sparse kernels, fp16: {after:.3f} ms, dense {before:.3f} ms"
    verdict = f"{times:.2f} times as fast" if times > 1 else "no faster here"
    latency = {"dtype": "fp16", "dense": before, "sparse": after, "times": times, **facts}
    return (f"{said}, {verdict}",), {"sparse_milliseconds": latency}


def is_two_of_four(weight: Tensor) -> bool:
    rows, inputs = weight.shape
    if rows % LEAST[0] or inputs % LEAST[1]:
        return False
    return bool(((weight.reshape(rows, -1, 4) != 0).sum(-1) <= 2).all())


def against(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[float, float, float]:
    """(ms of the first, of the second, median of how many times faster the second is); they take turns."""
    found: list[list[float]] = [[], []]
    for number in range(ROUNDS + 3):
        for call, kept in zip((first, second), found, strict=True):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if number >= 3:  # kernels are chosen at the first calls
                kept.append(begin.elapsed_time(end))
    ratios = [a / b for a, b in zip(*found, strict=True)]
    return statistics.median(found[0]), statistics.median(found[1]), statistics.median(ratios)
