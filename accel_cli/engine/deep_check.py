"""The fourth door without training: what only the model and the data can tell, on the meta device where that goes."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.config.work import steps
from accel_cli.data.base import quiet
from accel_cli.engine import activation_checkpointing
from accel_cli.engine.batches import augmentation
from accel_cli.engine.blocks import find_blocks
from accel_cli.engine.export import LOG, example, write
from accel_cli.engine.outputs import Outputs
from accel_cli.engine.silence import printing_to
from accel_cli.loader.evaluation import evaluation_batches
from accel_cli.optimizer.groups import parameter_groups
from accel_cli.optimizer.patterns import freeze
from accel_cli.task.base import resolve
from accel_cli.world import World


def check(run: Run) -> None:
    """Raise ConfigError for what setup would refuse. Weights are only allocated where a model cannot do without."""
    data = implementation("data", run.data)(run.data, run.train.seed)
    description = data.describe()
    steps(run, count := description.train_samples)
    augmentation(run, description)
    if run.task.option == "auto":
        implementation("task", run.task)(run.task, description)
        run = run.with_option("task", resolve(description))
    task = implementation("task", run.task)(run.task, description)
    stopping = implementation("stopping", run.stopping)(run.stopping, task.metric, task.mode)
    if task.metrics is not None:
        stopping.check([f"validation_{name}" for name in task.metrics])
    batch, _ = next(
        iter(
            evaluation_batches(
                data.split("train"),
                description=description,
                batch_size=2,
                rank=0,
                world_size=1,
                device=torch.device("cpu"),
                collate=data.collate,
            )
        )
    )
    needs_weights = run.transfer.option != "none" or bool(run.compression)
    try:
        model, output = _forward(run, description, task, batch, "cpu" if needs_weights else "meta")
    except (NotImplementedError, RuntimeError, AttributeError):
        model, output = _forward(run, description, task, batch, "cpu")
    task.check(output, batch)
    with torch.no_grad():
        implementation("transfer", run.transfer)(run.transfer).head(model, task, batch, min(2, count or 2))
    activation_checkpointing.check(find_blocks(model, run.train.blocks), run.train.activation_checkpointing)
    freeze(model, run.optimizer.groups)
    cpu = torch.device("cpu")
    precision = implementation("precision", run.precision)(run.precision, cpu)
    outputs = Outputs(
        run=run, data=data, augment=None, task=task, example=batch, precision=precision, device=cpu, report=quiet
    )
    for option in run.compression.values():
        implementation("compression", option)(option).check(model, task, outputs)
    device = implementation("hardware", run.hardware)(run.hardware).device(0)
    precision.convert(model, 1)
    groups = parameter_groups(model, run.optimizer, {})
    implementation("optimizer", run.optimizer)(run.optimizer, groups, device)

    def whole() -> tuple[nn.Module, Sequence[nn.Module]]:
        built = _model(run, description, "cpu")
        return built, find_blocks(built, run.train.blocks)

    there = run.launch.processes
    world = World(0, there * run.launch.most_nodes, 0, there, device)
    implementation("strategy", run.strategy).check(run.strategy, world, whole, batch, task)
    if run.export.option != "none":
        with tempfile.TemporaryDirectory(prefix="accel-export-") as name, printing_to(Path(name) / LOG):
            exporter = implementation("export", run.export)(run.export)
            write(exporter, _model(run, description, "cpu").eval(), example(batch), Path(name))


@torch.no_grad()
def _forward(run: Run, description: Any, task: Any, batch: Any, device: str) -> tuple[Any, Any]:
    model = _model(run, description, device)
    model.eval()
    return model, task.forward(model, _moved(batch, device))


def _model(run: Run, description: Any, device: str) -> Any:
    with torch.device(device):
        model = implementation("model", run.model)(run.model, description)
    if run.transfer.option != "none":
        implementation("transfer", run.transfer)(run.transfer).apply(model, description)
    return model


def _moved(batch: Any, device: str) -> Any:
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_moved(value, device) for value in batch)
    return batch
