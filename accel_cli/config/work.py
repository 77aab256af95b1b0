"""Equal work: what the user states (batch, length) and what follows from it (micro-batches, steps)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from accel_cli.config.run import Run
from accel_cli.errors import ConfigError, Problem


@dataclass(frozen=True)
class Work:
    """One global batch over the ranks: global_batch = world_size x micro_batches x micro_batch."""

    global_batch: int
    world_size: int
    micro_batches: int
    micro_batch: int


def nearest_batches(batch: int, ranks: int) -> tuple[int, int]:
    """The largest multiple of ``ranks`` below ``batch`` (at least one) and the smallest above."""
    below = batch // ranks * ranks
    return (below or ranks, below + ranks)


def divide(run: Run, world_size: int, stages: int = 1) -> Work:
    """Cut the global batch over ``world_size`` ranks with samples of their own, each of ``stages`` pipeline ranks."""
    batch = run.train.global_batch
    if batch % world_size:
        low, high = nearest_batches(batch, world_size)
        raise ConfigError(
            Problem(
                f"train.global_batch={batch}",
                f"does not divide over {world_size} processes",
                f"try train.global_batch={low} or train.global_batch={high}",
            )
        )
    share = batch // world_size
    parts = micro_batches(run, share, stages)
    if parts is None:
        low, high = (world_size * size for size in nearest_batches(share, stages))
        why = f"{share} samples a replica do not divide into a multiple of {stages} micro-batches"
        fix = f"try train.global_batch={low} or train.global_batch={high} with strategy.micro_batches=auto"
        raise ConfigError(Problem(f"train.global_batch={batch}", why, fix))
    return Work(batch, world_size, parts, share // parts)


def micro_batches(run: Run, share: int, stages: int) -> int | None:
    """The least number of micro-batches that divides a share of samples, fits micro_batch, and fills the stages.

    None where there is no such, or where ``strategy.micro_batches`` is none.
    """
    most = run.train.micro_batch if isinstance(run.train.micro_batch, int) else share
    fitting = [n for n in range(math.ceil(share / most), share + 1) if share % n == 0 and n % stages == 0]
    stated = getattr(run.strategy, "micro_batches", "auto") if stages > 1 else "auto"
    if stated == "auto":
        return fitting[0] if fitting else None
    return int(stated) if stated in fitting else None


def share_sizes(share: int) -> list[int]:
    """The micro-batches that a rank's share of samples divides into, the smallest first."""
    return [size for size in range(1, share + 1) if share % size == 0]


def steps(run: Run, train_samples: int | None) -> int:
    """Optimizer steps of the run: ceil(samples / global_batch)."""
    if run.train.steps is not None:
        return run.train.steps
    samples = run.train.samples
    if samples is None:
        if train_samples is None:
            raise ConfigError(
                Problem(
                    f"train.epochs={run.train.epochs}",
                    "this data is a stream of unknown length",
                    "try train.steps=1000 train.epochs=null",
                )
            )
        samples = math.ceil(run.train.epochs * train_samples)
    return max(1, math.ceil(samples / run.train.global_batch))


def learning_rate(run: Run) -> float:
    """The rate at schedule factor 1, after the stated scaling with the batch."""
    ratio = run.train.global_batch / run.train.base_batch
    factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[run.train.learning_rate_scaling]
    return float(run.optimizer.learning_rate * factor)
