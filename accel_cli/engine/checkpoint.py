"""Checkpoints: what is saved, and that a resumed run equals one that never stopped.

    checkpoints/step-00000100/   manifest.json  model.safetensors  average.safetensors  optimizer.safetensors  state.json
    checkpoints/latest           a link, moved only once its target is whole on the disk
    checkpoints/best             the same, by the task's metric on validation

A checkpoint is written beside its place, flushed, described by a manifest with a hash of every file, and renamed: whoever
reads sees the old state or the new one. Nothing is pickled, so nothing that is read can run.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from accel_cli.engine.training import Training
from accel_cli.errors import CheckpointError, ResourceError
from accel_cli.optimizer.base import laid_out_as

FORMAT_VERSION = 1
MOST_FAILED_SAVES = 3


@dataclass(frozen=True)
class Saved:
    """A checkpoint whose every file matches its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.manifest["step"])

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / f"{name}.safetensors")

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found


class Checkpoints:
    """The checkpoints of one run folder. ``save`` is a collective; only rank 0 writes."""

    def __init__(self, training: Training, folder: Path, run_id: str) -> None:
        self.t = training
        self.folder = folder / "checkpoints"
        self.run_id = run_id
        self.best: dict[int, float] = {}
        """Validation metric of the steps that have been both evaluated and saved."""
        self.failed_saves = 0
        self.last_saved: int | None = None

    def save(self, extra: dict[str, Any], value: float | None = None) -> str | None:
        """Save the state after the current step; ``value`` is the task's metric at that step, if it was evaluated.

        Returns a warning where nothing could be saved: training goes on, the older checkpoints stand, and only the third
        failure in a row raises ResourceError.
        """
        t = self.t
        generators = t.world.gather(generator_state())
        self.last_saved = t.step
        if not t.world.is_first:
            return None
        if value is not None:
            self.best[t.step] = value
        tensors = {"model": own_tensors(t.bare.state_dict()), "optimizer": optimizer_tensors(t.optimizer, t.bare)[0]}
        if t.average.decay is not None:
            tensors["average"] = own_tensors(t.average.tensors)
        if not all(torch.isfinite(x).all() for x in tensors["model"].values() if x.is_floating_point()):
            return f"step {t.step} was not saved: the weights hold nan or inf"
        state = {
            "step": t.step,
            "optimizer": optimizer_tensors(t.optimizer, t.bare)[1],
            "scaler": t.scaler.state(),
            "schedule": t.schedule.state(),
            "stopping": t.stopping.state(),
            "generators": generators,
            "best": {str(step): value for step, value in self.best.items()},
            **extra,
        }
        manifest = {
            "format_version": FORMAT_VERSION,
            "run_id": self.run_id,
            "step": t.step,
            "samples": t.samples,
            "world_size": t.world.world_size,
            "threads": torch.get_num_threads(),
            "description": t.description.to_dict(),
        }
        try:
            write(self.folder, t.step, tensors, state, manifest)
            self._link("latest", t.step)
            self._rotate()
            self.failed_saves = 0
        except OSError as error:
            self.failed_saves += 1
            why = f"step {t.step} was not saved: {error.strerror or error}"
            if self.failed_saves >= MOST_FAILED_SAVES:
                free = shutil.disk_usage(self.folder).free
                raise ResourceError(
                    f"{why}, {self.failed_saves} times in a row; {free:,} bytes free", "make room"
                ) from None
            return why
        return None

    def _best_steps(self) -> list[int]:
        sign = 1 if self.t.task.mode == "max" else -1
        present = [step for step in self.best if (self.folder / folder_name(step)).is_dir()]
        return sorted(present, key=lambda step: (sign * self.best[step], step), reverse=True)

    def _link(self, name: str, step: int) -> None:
        partial = self.folder / f".{name}-{uuid.uuid4().hex}"
        partial.symlink_to(folder_name(step))
        partial.replace(self.folder / name)

    def _rotate(self) -> None:
        """Keep the newest and the best; of a checkpoint to delete its manifest goes first, so that no half is believed."""
        steps = sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-????????"))
        best = self._best_steps()[: self.t.run.checkpoint.keep_best]
        if best:
            self._link("best", best[0])
        for step in set(steps) - set(steps[-self.t.run.checkpoint.keep_last :]) - set(best):
            doomed = self.folder / folder_name(step)
            (doomed / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(doomed, ignore_errors=True)
            self.best.pop(step, None)


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def write(
    folder: Path,
    step: int,
    tensors: dict[str, dict[str, torch.Tensor]],
    state: dict[str, Any],
    manifest: dict[str, Any],
) -> Path:
    """Write one checkpoint, all or nothing. Raises OSError, having removed what it began."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{folder_name(step)}-{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        for name, held in tensors.items():
            try:
                save_file(held, partial / f"{name}.safetensors")
            except SafetensorError as error:
                raise OSError(None, str(error)) from None
        (partial / "state.json").write_text(json.dumps(state))
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": digest(path)} for path in sorted(partial.iterdir())
        }
        (partial / "manifest.json").write_text(json.dumps({**manifest, "files": files}, indent=1))
        for path in partial.iterdir():
            flush(path)
        flush(partial)
        target = folder / folder_name(step)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        flush(folder)
        return target
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path) -> Saved:
    """Read a manifest and compare every file with it. Raises CheckpointError naming the file that is wrong."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        files = manifest["files"]
        version = manifest["format_version"]
    except FileNotFoundError:
        raise CheckpointError(f"{folder.name}: no manifest; it was never finished") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.name}: its manifest is damaged ({error})") from None
    if version > FORMAT_VERSION:
        raise CheckpointError(f"{folder.name}: written by a newer accel (format {version})", "upgrade accel")
    for name, facts in files.items():
        path = folder / name
        if Path(name).name != name or path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{folder.name}: {name} is missing")
        if path.stat().st_size != facts["bytes"] or digest(path) != facts["sha256"]:
            raise CheckpointError(f"{folder.name}: {name} is damaged: its hash is not the manifest's")
    return Saved(folder, manifest)


def newest(run_folder: Path) -> tuple[Saved, list[str]]:
    """The newest checkpoint that is whole, and what was wrong with those passed over.

    Raises CheckpointError where there is none: a resume never starts afresh by itself.
    """
    folder = run_folder / "checkpoints"
    passed: list[str] = []
    for path in sorted(folder.glob("step-????????"), reverse=True):
        try:
            return verify(path), passed
        except CheckpointError as error:
            passed.append(error.message)
    if not passed:
        raise CheckpointError(f"{run_folder} has no checkpoint", "start it again: accel train --run " + str(run_folder))
    raise CheckpointError("no checkpoint is whole: " + "; ".join(passed), "start the run again from its run.yaml")


def restore(training: Training, saved: Saved) -> dict[str, Any]:
    """Put a checkpoint's state into a training that setup has just built. Returns its state.json."""
    t, state = training, saved.state()
    with torch.no_grad():
        load_weights(t.bare, saved.tensors("model"))
        if t.average.decay is not None:
            t.average.load(saved.tensors("average"))
        load_optimizer(t.optimizer, t.bare, saved.tensors("optimizer"), state["optimizer"])
    t.scaler.load(state["scaler"])
    t.schedule.load(state["schedule"])
    t.stopping.load(state["stopping"])
    t.step = saved.step
    if len(state["generators"]) > t.world.rank:
        load_generator_state(state["generators"][t.world.rank])
    return state


def load_weights(model: nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Copy weights in by name. Raises CheckpointError where names or shapes differ: never a silent cast or skip."""
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(tensors)) + sorted(
        name for name in set(own) & set(tensors)
        if own[name].shape != tensors[name].shape or own[name].dtype != tensors[name].dtype
    )  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"the checkpoint does not fit this model: {', '.join(wrong[:5])}", "use the run's own run.yaml"
        )
    model.load_state_dict(tensors)


def own_tensors(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the host, contiguous, none sharing memory with another (tied weights): as safetensors wants them."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}


def optimizer_tensors(optimizer: Optimizer, model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, plain values) of the optimizer's state, by parameter name: ``<parameter>/<entry>``."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}/{entry}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                values[f"{name}/{entry}"] = value
    return tensors, values


def load_optimizer(
    optimizer: Optimizer, model: nn.Module, tensors: dict[str, torch.Tensor], values: dict[str, Any]
) -> None:
    """The inverse of ``optimizer_tensors``: entries go to the device that the optimizer would have put them on."""
    parameters = dict(model.named_parameters())
    for part in getattr(optimizer, "parts", [optimizer]):
        owned = {id(p) for group in part.param_groups for p in group["params"]}
        for key, value in {**tensors, **values}.items():
            name, _, entry = key.rpartition("/")
            parameter = parameters[name]
            if id(parameter) not in owned:
                continue
            if isinstance(value, torch.Tensor) and value.dim() > 0:
                value = laid_out_as(parameter, value) if value.shape == parameter.shape else value.to(parameter.device)
            elif isinstance(value, torch.Tensor):
                on_device = part.defaults.get("fused") or part.defaults.get("capturable")
                value = value.to(parameter.device if on_device else "cpu", copy=True)
            part.state[parameter][entry] = value


def generator_state() -> dict[str, Any]:
    """Python's and numpy's random state, as JSON. Torch's follows from the step."""
    kind, keys, position, has_gauss, gauss = numpy.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "python": [version, list(internal), gauss_next],
        "numpy": [str(kind), numpy.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)],
    }


def load_generator_state(state: dict[str, Any]) -> None:
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    numpy.random.set_state((kind, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, gauss))
