"""What each change of a model bought: metric, size and latency, before and after, side by side."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from accel_cli.compression.operations import multiply_adds
from accel_cli.engine.borders import Watch
from accel_cli.engine.evaluate import Around, evaluate_whole
from accel_cli.engine.latency import side_by_side
from accel_cli.engine.summary import write_json
from accel_cli.engine.training import Training
from accel_cli.structure import Border
from accel_cli.world import World

ROLLED_BACK = "rolled back"
FILE = "compression.json"


class Bought(Watch):
    """Writes a row for every change to compression.json, as the run goes on, and judges by ``compression.floor``."""

    def __init__(self, folder: Path, step: int, world: World, say: Callable[[str], None]) -> None:
        """Rows after ``step``, which a resume goes back to, are forgotten; a collective."""
        self.path = folder / FILE
        self.say = say
        # The first rank's, on all: a node may lack the folder, and what follows from them has to be one for all.
        known = world.gather(read(folder))[0]
        self.rows: list[dict[str, Any]] = [r for r in known if r["step"] < step or r["status"] == ROLLED_BACK]
        self._milliseconds: float | None = None
        """Of a training step before the next change."""
        self._before: nn.Module | None = None
        self._row: dict[str, Any] = {}

    def before(self, name: str, model: nn.Module, border: Border, around: Around) -> nn.Module:
        self._before = copy.deepcopy(model)
        self._row = {"pass": name, "step": border.step, "before": self._facts(model, border, around)}
        return self._before

    def after(
        self, name: str, model: nn.Module, border: Border, around: Around, notes: Sequence[str], *, timed: bool
    ) -> bool:
        row, before = self._row, self._before
        assert before is not None
        row["after"] = self._facts(model, border, around)
        arms = {"before": _call(before, border, around), "after": _call(model, border, around)}
        if around.world.is_first and timed:
            row["latency"] = side_by_side(arms, around.hardware.synchronize)
        row["notes"] = list(notes)
        row["status"] = "made"
        row["step_milliseconds"] = {"before": self._milliseconds, "after": None}
        self._before = None
        drop = dropped(row["before"]["metric"], row["after"]["metric"], around.task)
        floor = around.run.compression.own.floor
        stands = border.step < border.steps or floor is None or drop <= floor
        if not stands:
            row["status"] = ROLLED_BACK
            self.say(f"{name} was rolled back: {told_drop(row, around.task)}, more than compression.floor={floor:g}")
        self.rows.append(row)
        self._write(around.world)
        self.tell(name, notes)
        return stands

    def tell(self, name: str, notes: Sequence[str]) -> None:
        for note in notes:
            self.say(f"{name}: {note}")

    @property
    def open(self) -> bool:
        """Whether a change has not yet been seen after training around it."""
        return any("recovered" not in row for row in self.rows)

    def recovered(self, metric: float, world: Any) -> None:
        """Training around the changes so far has come to the next border, or to its end, with this metric."""
        for row in self.rows:
            row.setdefault("recovered", metric)
        self._write(world)

    def took(self, milliseconds: float | None, world: Any) -> None:
        """A training step took so long around the model as the last changes have left it."""
        for row in self.rows:
            if row["step_milliseconds"]["after"] is None and row["status"] == "made":
                row["step_milliseconds"]["after"] = milliseconds
        self._milliseconds = milliseconds
        self._write(world)

    def undecided(self, t: Training) -> set[int]:
        """The steps that training may have to go back to."""
        if t.run.compression.own.floor is None:
            return set()
        return {row["step"] for row in self._first_rows(t) if row["step"] < t.steps}

    def to_undo(self, t: Training) -> tuple[str, int] | None:
        """(a pass that has made all its changes and broke the floor, the step of the first of them)"""
        floor = t.run.compression.own.floor
        for row in self._first_rows(t) if floor is not None else ():
            name, step = row["pass"], row["step"]
            rows = [other for other in self.rows if other["pass"] == name]
            more = [border for border in t.passes[name].borders(t.steps) if t.step <= border < t.steps]
            if more or "recovered" not in rows[-1]:
                continue
            if dropped(row["before"]["metric"], rows[-1]["recovered"], t.task) <= floor:
                continue
            for other in rows:
                other["status"] = ROLLED_BACK
            self.rows = [other for other in self.rows if other["step"] < step or other["pass"] == name]
            self.say(
                f"{name} is rolled back, and training goes on from step {step}: {told_drop(row, t.task)}, "
                f"{rows[-1]['recovered']:.4f} in the end; compression.floor={floor:g}"
            )
            self._write(t.world)
            return name, step
        return None

    def _first_rows(self, t: Training) -> list[dict[str, Any]]:
        """Of every pass whose changes stand, the row of its first."""
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            if row["status"] == "made" and row["pass"] in t.passes:
                found.setdefault(row["pass"], row)
        return list(found.values())

    def _facts(self, model: nn.Module, border: Border, around: Around) -> dict[str, Any]:
        found = evaluate_whole(model, around, "validation")
        return {"metric": found[f"validation_{around.task.metric}"], **size(model, border, around)}

    def _write(self, world: Any) -> None:
        if world.is_first and self.rows:
            write_json(self.path, self.rows)


def read(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run; [] where nothing changed its model."""
    try:
        found: list[dict[str, Any]] = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return []
    return found


def dropped(old: float, new: float, task: Any) -> float:
    """By how much the metric is worse; infinite where it is none any more."""
    drop = old - new if task.mode == "max" else new - old
    return drop if math.isfinite(drop) else math.inf


def told_drop(row: dict[str, Any], task: Any) -> str:
    after = row["after"]["metric"]
    return f"validation {task.metric} went from {row['before']['metric']:.4f} to {after:.4f}"


def size(model: nn.Module, border: Border, around: Around) -> dict[str, Any]:
    """Parameters, the bytes they are stored in, multiply-adds of one sample."""
    was_training = model.training
    model.eval()
    with around.precision.autocast():
        operations = multiply_adds(model, border.task, border.example)
    model.train(was_training)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": stored_bytes(model),
        "multiply_adds": operations,
    }


def stored_bytes(model: nn.Module) -> int:
    """Of all weights and statistics; a module may say itself, as ``stored_bytes``, what its own take."""
    total, seen = 0, set[int]()
    said = {m for owner in model.modules() if hasattr(owner, "stored_bytes") for m in owner.modules() if m is not owner}
    for module in model.modules():
        if module in said:
            continue
        if hasattr(module, "stored_bytes"):
            total += int(module.stored_bytes)  # type: ignore[arg-type]
            continue
        for tensor in (*module._parameters.values(), *_buffers(module)):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                total += tensor.numel() * tensor.element_size()
    return total


def _buffers(module: nn.Module) -> list[Any]:
    return [value for name, value in module._buffers.items() if name not in module._non_persistent_buffers_set]


def _call(model: nn.Module, border: Border, around: Around) -> Callable[[], None]:
    """A forward pass of one sample, as evaluation does it."""
    one = tree_map(lambda x: x[:1] if isinstance(x, torch.Tensor) and x.dim() else x, border.example)
    model.eval()

    @torch.no_grad()
    def forward() -> None:
        with around.precision.autocast():
            border.task.forward(model, one)

    return forward
