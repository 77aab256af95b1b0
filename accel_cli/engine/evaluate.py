"""The same metric on one rank or eight: every sample of a split once."""

from __future__ import annotations

import torch

from accel_cli.engine.training import Training
from accel_cli.loader.evaluation import evaluation_batches


@torch.no_grad()
def evaluate(training: Training, split: str) -> dict[str, float]:
    """Metrics of a split, named ``<split>_<metric>``; equal on all ranks.

    Sums and weights are added over batches and ranks, then divided: not a mean of means. All ranks do the same number
    of forward passes. The evaluation weights are used, see ``average``.
    """
    t = training
    batches = evaluation_batches(
        t.data.split(split),
        description=t.data.describe(),
        batch_size=t.run.evaluate.batch,
        rank=t.strategy.data.rank,
        world_size=t.strategy.data.world_size,
        device=t.world.device,
        collate=t.data.collate,
    )
    totals: dict[str, torch.Tensor] = {}
    t.strategy.share_buffers(t.bare)
    t.bare.eval()
    with t.average.applied(), t.strategy.evaluating(t.bare), t.compiler.as_written():
        for batch, count in batches:
            with t.precision.autocast():
                sums = t.strategy.evaluate(t.task, t.bare, batch)
            for name, (value, weight) in sums.items():
                pair = torch.stack([torch.as_tensor(x).cpu().double() for x in (value, weight)])
                kept = pair if count else torch.zeros_like(pair)
                totals[name] = totals[name] + kept if name in totals else kept
    t.train_mode()
    names = sorted(totals)
    together = torch.cat([totals[name] for name in names]).to(t.hardware.sum_dtype)
    summed = t.strategy.losses.sum(together.to(t.world.device))
    # Ranks outside of ``losses`` have summed the same in another order: a verdict to stop has to be one for all.
    sums_and_weights = t.world.share(summed).cpu().view(-1, 2)
    means = {name: float(value / weight) for name, (value, weight) in zip(names, sums_and_weights, strict=True)}
    return {f"{split}_{name}": value for name, value in t.task.summarize(means, split).items()}
