"""Export: a run's model, written for another runtime, run there beside PyTorch, and told in a report."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.config.machine import version
from accel_cli.config.parts import implementation, table
from accel_cli.config.run import Run
from accel_cli.data.base import SPLITS, Report
from accel_cli.engine.export_beside import BATCH_SIZES, beside, latencies, logits, only_input
from accel_cli.engine.export_description import describe_model
from accel_cli.engine.silence import printing_to
from accel_cli.engine.summary import write_json
from accel_cli.engine.trained import trained_model
from accel_cli.engine.training import Whole
from accel_cli.errors import ResourceError
from accel_cli.export.base import deployed
from accel_cli.loader.evaluation import evaluation_batches
from accel_cli.task.base import resolve
from accel_cli.task.batch import split as inputs_of

FOLDER, MODEL, REPORT, LOG = "export", "model.json", "report.json", "export.log"


class Plain(nn.Module):
    """A model whose output is an object that has logits, giving those."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return logits(self.model(inputs))


def export(run: Run, folder: Path, which: str, option: Any, report: Report) -> dict[str, Any]:
    """Write ``folder``/export/<format>: the model's files, model.json for whoever runs them, and report.json.

    On the host, in this process; all or nothing. Returns the report. Raises ConfigError for a model that the format
    cannot hold, CheckpointError where there is no checkpoint ``which``, ResourceError for the disk.
    """
    target = folder / FOLDER / option.option
    partial = target.with_name(f".{option.option}-{uuid.uuid4().hex}")
    for stale in target.parent.glob(".*"):  # of one that was killed
        shutil.rmtree(stale, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        found = _export(run, folder, which, option, partial, report)
        write_json(partial / REPORT, found)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except OSError as error:
        raise ResourceError(f"cannot write {target}: {error.strerror or error}", "free some disk") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {**found, "folder": str(target)}


def _export(run: Run, folder: Path, which: str, option: Any, place: Path, report: Report) -> dict[str, Any]:
    began = time.perf_counter()
    trained = trained_model(folder, which)
    model, description = trained.model, trained.description
    if run.task.option == "auto":
        run = run.with_option("task", resolve(description))
    data = implementation("data", run.data)(run.data, run.train.seed)
    task = implementation("task", run.task)(run.task, description)

    def batches(split: str, size: int) -> Any:
        return evaluation_batches(
            data.split(split), description=description, batch_size=size, rank=0, world_size=1,
            device=torch.device("cpu"), collate=data.collate,
        )  # fmt: skip

    inputs = example(next(batches("validation", max(BATCH_SIZES)))[0])
    with torch.no_grad():
        output = model(inputs)
    report(f"export to {option.option}", 0, 1)
    with printing_to(place / LOG):
        exporter = implementation("export", option)(option)
        files = write(exporter, model, inputs, place)
    write_json(place / MODEL, describe_model(run, trained, inputs=inputs, output=logits(output)))
    report(f"export to {option.option}", 1, 1)
    with printing_to(place / LOG):
        runtime = exporter.load(place)
    found: dict[str, Any] = {
        "format": option.option,
        "settings": option.model_dump(),
        "checkpoint": trained.checkpoint,
        "files": {path.name: path.stat().st_size for path in files},
        "bytes": None if exporter.is_emulation else sum(path.stat().st_size for path in files),
        "pytorch_bytes": Whole.of(model).bytes,
        "metric": task.metric,
        "trained_in": run.precision.option,
        "threads": torch.get_num_threads(),
        "splits": {},
        "latency": {},
    }
    if runtime is not None:
        for name in SPLITS[1:]:
            samples = getattr(data.describe(), f"{name}_samples")
            found["splits"][name] = beside(
                model, runtime, task, batches(name, run.evaluate.batch), split=name, samples=samples, report=report
            )
        if not exporter.is_emulation:
            found["latency"] = latencies(model, runtime, inputs, report)
    packages = ("torch", *table("export")[option.option].requires)
    return found | {
        "facts": exporter.facts(place),
        "versions": {package: version(package) for package in packages},
        "seconds": round(time.perf_counter() - began, 3),
    }


def write(exporter: Any, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
    """The files of what a runtime can run of ``model``; ``inputs`` [n, ...] two or more: 1 passes for a constant."""
    if exporter.is_graph:
        model = deployed(model).eval()
        with torch.no_grad():
            model = model if isinstance(model(inputs), Tensor) else Plain(model)
    files: list[Path] = exporter.write(model, inputs[:2], folder)
    return files


def example(batch: Any) -> Tensor:
    """The inputs of a batch, twice where it has one sample."""
    inputs, _ = inputs_of(batch)
    found = only_input((), inputs) if isinstance(inputs, dict) else only_input((inputs,), {})
    return found if len(found) > 1 else torch.cat([found, found])
