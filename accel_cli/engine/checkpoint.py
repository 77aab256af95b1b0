"""Checkpoints: what is saved when, what is kept, and that a resumed run equals one that never stopped.

Training stands still while its state is copied; a thread writes the copy while training goes on.

checkpoints/step-00000100/   see checkpoint_files
checkpoints/latest           a link, moved only once its target is whole on the disk
checkpoints/best             the same, by the task's metric on validation
"""

from __future__ import annotations

import json
import shutil
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from accel_cli.engine import checkpoint_replicas
from accel_cli.engine.checkpoint_files import FORMAT_VERSION, Saved, folder_name, steps_in, write
from accel_cli.engine.state import (
    check_fit,
    generator_state,
    load_generator_state,
    load_optimizer,
    load_weights,
    optimizer_tensors,
)
from accel_cli.engine.training import Training
from accel_cli.errors import ResourceError

MOST_FAILED_SAVES = 3


class Outcome(NamedTuple):
    """How a save ended."""

    step: int
    warning: str | None
    """Why nothing was saved; training goes on, and the older checkpoints stand."""


class Checkpoints:
    """The checkpoints of one run folder. ``save`` is a collective; only rank 0 writes, one checkpoint at a time."""

    def __init__(self, training: Training, folder: Path, run_id: str) -> None:
        self.t = training
        self.folder = folder / "checkpoints"
        self.run_id = run_id
        self.best: dict[int, float] = {}
        """Validation metric of the steps that have been both evaluated and saved."""
        self.pinned: set[int] = set()
        """Steps whose checkpoints stay: training may have to go back to them."""
        self.failed_saves = 0
        self.last_saved: int | None = None
        self._writer = ThreadPoolExecutor(1, "accel-checkpoint")
        self._writing: Future[Outcome] | None = None

    def save(self, extra: dict[str, Any], value: float | None = None) -> list[Outcome]:
        """Save the state after the current step; ``value`` is the task's metric at that step, if it was evaluated.

        Returns how the save before it ended, which this one waits for. The third failure in a row raises ResourceError.
        """
        before = self.finish()
        t = self.t
        moments, own_values = optimizer_tensors(t.optimizer, t.bare)
        gathered = t.world.gather((generator_state(), own_values))
        with t.strategy.evaluating(t.bare):
            tensors = {"model": t.strategy.gather(t.bare.state_dict())}
        tensors["optimizer"] = t.strategy.gather(moments)
        tensors["average"] = self._average()
        tensors["strategy"] = t.strategy.state()
        tensors["communication"] = t.communication.state()
        own = {f"{name}/{key}": value for name, part in t.passes.items() for key, value in part.state().items()}
        tensors["compression"] = t.strategy.gather(own)
        tensors |= checkpoint_replicas.collect(t)
        self.last_saved = t.step
        if not t.world.is_first:
            return before
        if not _is_finite(tensors["model"]):
            return [*before, Outcome(t.step, f"step {t.step} was not saved: the weights hold nan or inf")]
        scores = self.best if value is None else {**self.best, t.step: value}
        kept = self._kept(scores)
        best = {step: score for step, score in scores.items() if step in kept}
        state = {
            "step": t.step,
            "optimizer": {key: value for _, values in gathered for key, value in values.items()},
            "scaler": t.scaler.state(),
            "schedule": t.schedule.state(),
            "stopping": t.stopping.state(),
            "generators": [generators for generators, _ in gathered],
            "best": {str(step): score for step, score in best.items()},
            **extra,
        }
        manifest = {
            "format_version": FORMAT_VERSION,
            "run_id": self.run_id,
            "step": t.step,
            "samples": t.samples,
            "world_size": t.world.world_size,
            "strategy": t.run.strategy.option,
            "communication": t.run.communication.option,
            "threads": torch.get_num_threads(),
            "description": t.description.to_dict(),
            "structure": [change.to_dict() for change in t.start.changes],
        }
        held = {name: part for name, part in tensors.items() if part}
        self._writing = self._writer.submit(self._write, t.step, held, json.dumps(state), manifest, best, kept)
        return before

    def finish(self) -> list[Outcome]:
        """Wait for what is being written; how it ended, [] where nothing was."""
        writing, self._writing = self._writing, None
        return [] if writing is None else [writing.result()]

    def _write(
        self,
        step: int,
        tensors: dict[str, dict[str, torch.Tensor]],
        state: str,
        manifest: dict[str, Any],
        best: dict[int, float],
        kept: set[int],
    ) -> Outcome:
        try:
            write(self.folder, step, tensors, state, manifest)
            self._link("latest", step)
            if best:
                self._link("best", self._ranked(best)[0])
        except OSError as error:
            return Outcome(step, self._failed(step, error))
        self.best, self.failed_saves = best, 0
        self._delete_all_but(kept)
        return Outcome(step, None)

    def _average(self) -> dict[str, torch.Tensor]:
        t = self.t
        if not t.average.is_active:
            return {}
        with t.average.applied(), t.strategy.evaluating(t.bare):
            averages: dict[str, torch.Tensor] = t.strategy.gather(t.bare.state_dict())
        return averages

    def _failed(self, step: int, error: OSError) -> str:
        self.failed_saves += 1
        why = f"step {step} was not saved: {error.strerror or error}"
        if self.failed_saves >= MOST_FAILED_SAVES:
            free = shutil.disk_usage(self.folder.parent).free
            raise ResourceError(
                f"{why}, {self.failed_saves} times in a row; {free:,} bytes free", "make room"
            ) from None
        return why

    def _kept(self, scores: dict[int, float]) -> set[int]:
        """The steps that stay once the current one is saved: the newest and the best.

        A step beyond the current one is what a resume has passed over, being damaged.
        """
        settings, step = self.t.run.checkpoint, self.t.step
        present = sorted({step, *(s for s in steps_in(self.folder) if s < step)})
        best = self._ranked({s: score for s, score in scores.items() if s in present})
        return {*present[-settings.keep_last :], *best[: settings.keep_best], *self.pinned}

    def _ranked(self, scores: dict[int, float]) -> list[int]:
        """Steps, best first; of equals the later, and NaN last."""
        sign = 1 if self.t.task.mode == "max" else -1
        return sorted(scores, key=lambda s: (scores[s] == scores[s], sign * scores[s], s), reverse=True)

    def _link(self, name: str, step: int) -> None:
        partial = self.folder / f".{name}-{uuid.uuid4().hex}"
        partial.symlink_to(folder_name(step))
        partial.replace(self.folder / name)

    def _delete_all_but(self, kept: set[int]) -> None:
        """And what a killed save left; of a checkpoint its manifest goes first, so that no half is believed."""
        for step in set(steps_in(self.folder)) - kept:
            doomed = self.folder / folder_name(step)
            (doomed / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(doomed, ignore_errors=True)
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_finite(tensors: dict[str, torch.Tensor]) -> bool:
    norms = torch._foreach_norm([x for x in tensors.values() if x.is_floating_point()], float("inf"))
    return bool(torch.stack([norm.double() for norm in norms]).isfinite().all()) if norms else True


def restore(training: Training, saved: Saved) -> dict[str, Any]:
    """Put a checkpoint's state into a training that setup has just built. Returns its state.json.

    It may have been written under another strategy and by another number of ranks: what it holds is whole. Only what a
    strategy or a communication keeps of its own is left behind when that has changed.
    """
    t, state, weights = training, saved.state(), saved.tensors("model")
    check_fit(t.whole, weights)
    own = checkpoint_replicas.own_part(t, saved)
    moments, values = saved.tensors("optimizer"), state["optimizer"]
    if own:
        weights |= own["model"]
        moments, values = own["optimizer"], values | own["value"]
    with torch.no_grad():
        load_weights(t.bare, weights, t.strategy.scatter)
        if t.average.tensors:
            t.average.load(own.get("average") or saved.tensors("average"), t.strategy.scatter)
        load_optimizer(t.optimizer, t.bare, moments, values, t.strategy.scatter)
        for name, part in (("strategy", t.strategy), ("communication", t.communication)):
            same = (saved.manifest["world_size"], saved.manifest.get(name)) == (
                t.world.world_size, getattr(t.run, name).option,
            )  # fmt: skip
            if same:
                part.load(saved.tensors(name))
        kept = saved.tensors("compression")
        for name, compression in t.passes.items():
            live = compression.state()
            found = {key: kept[f"{name}/{key}"] for key in live if f"{name}/{key}" in kept}
            compression.load({key: t.strategy.scatter(value, live[key]) for key, value in found.items()})
        if own:
            t.strategy.load_own(own["strategy"])
    t.scaler.load(own.get("scaler") or state["scaler"])
    t.schedule.load(state["schedule"])
    t.stopping.load(state["stopping"])
    t.step = saved.step
    if len(state["generators"]) > t.world.rank:
        load_generator_state(state["generators"][t.world.rank])
    return state
