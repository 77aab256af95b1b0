"""The one order of construction: from a checked Run to a Training that can take its first step."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy
import torch
from torch import nn

from accel_cli.config.decide import Decision
from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.config.work import divide, learning_rate, steps
from accel_cli.data.base import Report, quiet
from accel_cli.engine import activation_checkpointing, borders, same_start
from accel_cli.engine.average import evaluation_weights
from accel_cli.engine.batches import augmentation, loader_of, node_of
from accel_cli.engine.blocks import find_blocks
from accel_cli.engine.borders import Start, Watch
from accel_cli.engine.evaluate import Around
from accel_cli.engine.features import on_features, through_the_model
from accel_cli.engine.outputs import Outputs
from accel_cli.engine.step import step_seed
from accel_cli.engine.training import Training, Whole
from accel_cli.loader.evaluation import evaluation_batches
from accel_cli.optimizer.base import supports_found_inf
from accel_cli.optimizer.eager import eager
from accel_cli.optimizer.groups import parameter_groups
from accel_cli.optimizer.patterns import freeze
from accel_cli.structure import Border
from accel_cli.task.base import resolve
from accel_cli.world import World, join, ranks_from_environment


def enter(run: Run) -> tuple[Any, World]:
    """The device and the other ranks: what has to come before any tensor."""
    hardware = implementation("hardware", run.hardware)(run.hardware)
    device = hardware.device(ranks_from_environment()[2])
    hardware.start(device, run.train.determinism)
    return hardware, join(device, run.launch.backend, run.launch.wait)


def build(
    run: Run,
    hardware: Any,
    world: World,
    say: Callable[[str], None],
    progress: Report = quiet,
    *,
    start: Start | None = None,
    watch: Watch | None = None,
    learns: bool = True,
) -> tuple[Training, list[Decision]]:
    """Build everything, in the order that each thing needs of the ones before it.

    ``start`` is what training goes on from: None is its beginning. ``watch`` sees the changes of structure that are due
    there. Without ``learns`` it is to be evaluated only: no change is made, and what a run computes once to learn from
    is left out.
    Raises ConfigError for what only the model or the data can tell (the fourth door); every rank raises the same.
    """
    decisions: list[Decision] = []
    start = start or Start()

    # 1. how ranks stand to each other, the batch arithmetic, and the seed
    strategy = implementation("strategy", run.strategy)(run.strategy, world)
    work = divide(run, strategy.data.world_size, run.strategy.sizes(world.world_size)["pipeline"])
    seed_everything(hardware, run.train.seed)

    # 2. the data, and with it what a model and a task have to fit
    data = implementation("data", run.data)(run.data, run.train.seed)
    description = data.describe()
    run_steps = steps(run, description.train_samples)

    # 3. the task that the target asks for
    if run.task.option == "auto":
        implementation("task", run.task)(run.task, description)  # refuses what means nothing for these targets
        option = resolve(description)
        decisions.append(Decision("task", option, f"the targets are a {description.target.replace('_', ' ')}"))
        run = run.with_option("task", option)
    task = implementation("task", run.task)(run.task, description)

    # 4. the model, what it knows already, and the structure that it has by now
    bare = implementation("model", run.model)(run.model, description)
    parts = borders.parts_of(run)
    transfer = parts["transfer"]
    undone = borders.undone(start.changes)
    passes = {name: parts[name] for name in run.compression if name not in undone}
    for line in transfer.apply(bare, description):
        say(line)
    lines, still = freeze(bare, run.optimizer.groups)
    for line in lines:
        say(line)
    bare = borders.replay(bare, parts, start.changes)

    # 5. changes that are due come before anything that lays out, converts, counts or shards parameters
    home = world.device if strategy.holds_whole else torch.device("cpu")
    bare.to(home)
    precision = implementation("precision", run.precision)(run.precision, world.device)
    example = batch_of(data, 2, home)
    augment = augmentation(run, description)
    outputs = Outputs(
        run=run, data=data, augment=augment, task=task, example=example, precision=precision,
        device=world.device, report=progress,
    )  # fmt: skip
    if learns and start.saved is None:
        for compression in passes.values():
            if any(border > 0 for border in compression.borders(run_steps)):  # late to find out then
                compression.check(copy.deepcopy(bare), task, outputs)
    if learns:
        border = border_of(run, start.step, run_steps, task, data, home, example, outputs)
        around = Around(run, data, task, world, hardware, precision)
        bare, start = borders.cross(bare, parts, start, border, watch or Watch(), around)
    for line in hardware.arrange(bare):
        say(line)

    # 6. does the model's output fit the data? One batch tells
    precision.start()
    for line in precision.convert(bare, work.micro_batch):
        say(line)
    _check(task, bare, example, precision)
    head = _head(transfer, task, bare, example, min(2, description.train_samples or 2), precision) if learns else None
    why = through_the_model(head, run, data, augment) if head is not None else ""
    if head is not None and why:
        say(f"{head.name} is trained through the frozen rest of the model: {why}")
    elif head is not None:
        data, augment = on_features(head, bare, outputs), None
        say(f"{head.name} is trained, on features {list(data.describe().input_shape)} of the rest, computed once")
        example = batch_of(data, 2, home)
    if run.communication.option == "auto" and strategy.gradient.world_size == 1:
        run = run.with_option("communication", "exact")  # no decision: more ranks may join later
    elif run.communication.option == "auto":
        batch = batch_of(data, work.micro_batch, home)
        decisions.append(_communication(run, strategy, task, bare, batch, precision, work.micro_batches))
        run = run.with_option("communication", decisions[-1].value)

    # 7. what this rank holds of the model; compile inside data parallelism, so that communication overlaps backward
    same_start.check(bare, world)
    whole = Whole.of(bare)
    rates, frozen = transfer.rates(bare), [*transfer.frozen_modules(bare), *still]
    blocks = find_blocks(bare, run.train.blocks)
    activation_checkpointing.check(blocks, run.train.activation_checkpointing)
    with precision.placing():
        bare, lines = strategy.place(bare, blocks, example, task)
    for line in lines:
        say(line)
    held = {id(module) for module in bare.modules()}
    blocks = [block for block in blocks if id(block) in held]
    activation_checkpointing.apply(blocks, run.train.activation_checkpointing)
    compiler = implementation("compile", run.compile)(run.compile)
    compiler.apply(bare, blocks)
    communication = implementation("communication", run.communication)(run.communication)
    model = strategy.wrap(bare, blocks, communication, precision)

    # 8. the optimizer, after everything that replaces parameters
    groups = parameter_groups(bare, run.optimizer, rates)
    optimizer = eager(lambda: implementation("optimizer", run.optimizer)(run.optimizer, groups, world.device))
    schedule = implementation("schedule", run.schedule)(run.schedule)
    schedule.check(optimizer.param_groups)
    stopping = implementation("stopping", run.stopping)(run.stopping, task.metric, task.mode)
    if task.metrics is not None:
        stopping.check([f"validation_{name}" for name in task.metrics])

    # 9. what happens after each step: a tuple, empty when nothing does
    average = evaluation_weights(bare, run.train, optimizer)
    for compression in passes.values():
        compression.attach(bare)
        compression.follow(average.by_parameter)
    hooks: list[Callable[[int], None]] = [_after(compression, bare) for compression in passes.values()]
    if average.tensors:
        hooks.append(average.after_step)
    hooks += strategy.after_step
    hooks += precision.after_step(bare)

    # 10. what is learnt from beside the targets, and the batches, of data that is final now
    for compression in passes.values() if learns else ():
        task, augment = compression.teach(task, augment, outputs)
    views = next((part.views for part in (data, *passes.values()) if part.views is not None), None)
    node = node_of(run, data, hardware, world, progress)
    loader = loader_of(run, data, augment, work.micro_batches, strategy.data, views, node)
    if run.loader.option == "auto":
        decisions.append(Decision("loader", type(loader).__name__.lower(), loader.why))

    # 11. what user code draws while training is a rank's own, from here on
    seed_everything(hardware, step_seed(run.train.seed, 0, strategy.data.rank))

    training = Training(
        run=run,
        work=work,
        world=world,
        steps=run_steps,
        description=description,
        whole=whole,
        hardware=hardware,
        strategy=strategy,
        communication=communication,
        precision=precision,
        compiler=compiler,
        scaler=precision.scaler(),
        task=task,
        data=data,
        loader=loader,
        transfer=transfer,
        passes=passes,
        start=start,
        border=borders.next_border(parts, start.changes, start.step, run_steps),
        stopping=stopping,
        schedule=schedule,
        model=model,
        bare=bare,
        average=average,
        optimizer=optimizer,
        fused=not hardware.is_host and supports_found_inf(optimizer),
        learning_rate=learning_rate(run),
        parameters=[p for p in bare.parameters() if p.requires_grad],
        frozen=frozen,
        after_step=tuple(hooks),
    )
    return training, decisions


def seed_everything(hardware: Any, value: int) -> None:
    """Torch's generators, and Python's and numpy's, which user code may draw from."""
    hardware.seed(value)
    random.seed(value)
    numpy.random.seed(value % 2**32)


def _after(compression: Any, model: nn.Module) -> Callable[[int], None]:
    return lambda step: compression.after_step(model, step)


def border_of(
    run: Run,
    step: int,
    run_steps: int,
    task: Any,
    data: Any,
    home: torch.device,
    example: Any,
    outputs: Outputs | None = None,
) -> Border:
    """What a change of a model on ``home`` may look at."""
    batches = partial(_batches, data, home, run.evaluate.batch)
    return Border(step, run_steps, task, example, batches, run.train.seed, outputs)


def batch_of(data: Any, size: int, home: torch.device) -> Any:
    """The first training samples, as evaluation reads them."""
    return next(_batches(data, home, size, size))


def _batches(data: Any, home: torch.device, size: int, samples: int) -> Iterator[Any]:
    """Batches of the first so many training samples, as evaluation reads them."""
    batches = evaluation_batches(
        data.split("train"),
        description=data.describe(),
        batch_size=min(size, samples),
        rank=0,
        world_size=1,
        device=home,
        collate=data.collate,
    )
    for batch, count in batches:
        if samples <= 0:
            return
        yield batch
        samples -= count


@torch.no_grad()
def _check(task: Any, model: nn.Module, batch: Any, precision: Any) -> None:
    """Run the model on a few samples, as evaluation will."""
    model.eval()
    with precision.autocast():
        task.check(task.forward(model, batch), batch)
    model.train()


@torch.no_grad()
def _head(transfer: Any, task: Any, model: nn.Module, batch: Any, samples: int, precision: Any) -> Any:
    """The part that alone is trained, if that is how the run learns."""
    model.eval()
    with precision.autocast():
        head = transfer.head(model, task, batch, samples)
    model.train()
    return head


@torch.no_grad()
def _communication(
    run: Run, strategy: Any, task: Any, model: nn.Module, batch: Any, precision: Any, micro_batches: int
) -> Decision:
    """What ``communication=auto`` becomes; a collective. Evaluation mode: nothing that a model keeps is changed."""

    def forward() -> None:
        with precision.autocast():
            task.forward(model, batch)

    auto = implementation("communication", run.communication)(run.communication)
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    decision: Decision = auto.decide(
        strategy.gradient, parameters, forward, micro_batches, scaled=run.precision.option == "fp16"
    )
    model.train()
    return decision
