"""The loader of a run: what it reads, what changes it, whose ranks share it."""

from __future__ import annotations

from typing import Any

from accel_cli.augment.base import Pipeline
from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.config.work import steps
from accel_cli.data.base import Report, quiet
from accel_cli.engine.sharing import Kept, Node
from accel_cli.engine.training import Training
from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.order import Order
from accel_cli.world import World


def augmentation(run: Run, description: Any) -> Pipeline | None:
    """What changes training batches; None where nothing does. Raises ConfigError where the data does not allow it."""
    transforms = [implementation("augment", option)(option, description) for option in run.augment.values()]
    return Pipeline(transforms, run.train.seed, steps(run, description.train_samples)) if transforms else None


def node_of(run: Run, data: Any, hardware: Any, world: World, report: Report) -> Node:
    """What the loaders of a node share."""
    content = data.content("train")
    kept = None if content is None else Kept(run.data.cache, content)
    made_of = [run.data.model_dump(), run.train.seed]
    return Node(world, made_of, kept, report, hardware.memory_limit(world.local_world_size))


def loader_of(
    run: Run, data: Any, augment: Any, micro_batches: int, world: World, views: int | None, node: Node
) -> Any:
    """The loader that ``run`` names, for one of the ranks of ``world``, which get different samples."""
    dataset, description = data.split("train"), data.describe()
    samples = description.train_samples
    if samples is not None and samples < 1:
        raise ConfigError(Problem(f"data={run.data.option}", "the training split is empty", "check the data"))
    order = Order(
        seed=run.train.seed,
        samples=samples,
        global_batch=run.train.global_batch,
        rank=world.rank,
        world_size=world.world_size,
        views=views,
    )
    return implementation("loader", run.loader)(
        run.loader,
        dataset=dataset,
        description=description,
        order=order,
        micro_batches=micro_batches,
        augment=augment,
        device=world.device,
        collate=data.collate,
        seed=run.train.seed,
        sharing=node,
    )


def loader_for(run: Run, t: Training) -> Any:
    """Another loader for a training that is built, as ``run`` says."""
    node, own = node_of(run, t.data, t.hardware, t.world, quiet), t.loader
    return loader_of(run, t.data, own.finish.augment, t.work.micro_batches, t.strategy.data, own.order.views, node)
