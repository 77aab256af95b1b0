"""The same metric on one rank or eight: every sample of a split once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from accel_cli.config.run import Run
from accel_cli.engine.training import Training
from accel_cli.loader.evaluation import evaluation_batches
from accel_cli.world import World


class Around(NamedTuple):
    """What it takes to evaluate beside a model; a training has it too."""

    run: Run
    data: Any
    task: Any
    world: World
    hardware: Any
    precision: Any


Batches = Iterable[tuple[Any, int]]
"""(batch, samples of it that count)"""


@torch.no_grad()
def evaluate(training: Training, split: str) -> dict[str, float]:
    """Metrics of a split, named ``<split>_<metric>``; equal on all ranks.

    Sums and weights are added over batches and ranks, then divided: not a mean of means. All ranks do the same number
    of forward passes. The evaluation weights are used, see ``average``.
    """
    t = training
    batches = _batches(t, split, t.strategy.data)
    t.strategy.share_buffers(t.bare)
    t.bare.eval()
    with t.average.applied(), t.strategy.evaluating(t.bare), t.compiler.as_written():
        totals = _totals(batches, t.precision, lambda batch: t.strategy.evaluate(t.task, t.bare, batch))
    t.train_mode()
    return _means(totals, t, t.strategy.losses.sum, split)


@torch.no_grad()
def evaluate_whole(model: nn.Module, around: Around, split: str) -> dict[str, float]:
    """The same of a whole plain model, the same on every rank; each takes its part of the split."""
    batches = _batches(around, split, around.world)
    was_training = model.training
    model.eval()
    totals = _totals(batches, around.precision, lambda batch: around.task.evaluate(model, batch))
    model.train(was_training)
    return _means(totals, around, around.world.sum, split)


def _batches(t: Any, split: str, ranks: World) -> Batches:
    return evaluation_batches(
        t.data.split(split),
        description=t.data.describe(),
        batch_size=t.run.evaluate.batch,
        rank=ranks.rank,
        world_size=ranks.world_size,
        device=t.world.device,
        collate=t.data.collate,
    )


def _totals(batches: Batches, precision: Any, sums_of: Callable[[Any], dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Metric -> [sum, weight] over this rank's batches."""
    totals: dict[str, torch.Tensor] = {}
    for batch, count in batches:
        with precision.autocast():
            sums = sums_of(batch)
        for name, (value, weight) in sums.items():
            pair = torch.stack([torch.as_tensor(x).cpu().double() for x in (value, weight)])
            kept = pair if count else torch.zeros_like(pair)
            totals[name] = totals[name] + kept if name in totals else kept
    return totals


def _means(
    totals: dict[str, torch.Tensor], t: Any, add: Callable[[torch.Tensor], torch.Tensor], split: str
) -> dict[str, float]:
    names = sorted(totals)
    together = torch.cat([totals[name] for name in names]).to(t.hardware.sum_dtype)
    summed = add(together.to(t.world.device))
    # Ranks outside of those that add have summed the same in another order: a verdict to stop has to be one for all.
    sums_and_weights = t.world.share(summed).cpu().view(-1, 2)
    means = {name: float(value / weight) for name, (value, weight) in zip(names, sums_and_weights, strict=True)}
    return {f"{split}_{name}": value for name, value in t.task.summarize(means, split).items()}
