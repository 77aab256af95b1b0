"""Borders: where a run's model changes its structure, and what training goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.engine.checkpoint_files import Saved
from accel_cli.structure import Border, Change, Changed, Structural

Parts = Mapping[str, Structural]
"""``transfer``, then the compression passes by name, in order."""


def parts_of(run: Run) -> dict[str, Any]:
    """All of a run that may change its model's structure."""
    passes = {name: implementation("compression", option)(option) for name, option in run.compression.items()}
    return {"transfer": implementation("transfer", run.transfer)(run.transfer), **passes}


@dataclass(frozen=True)
class Start:
    """What a phase of training begins with: a checkpoint, and the changes that its model has gone through."""

    saved: Saved | None = None
    """None: the model as it is configured."""
    changes: tuple[Change, ...] = ()

    @staticmethod
    def of(saved: Saved | None) -> Start:
        return Start() if saved is None else Start(saved, changes_in(saved))

    @property
    def step(self) -> int:
        return 0 if self.saved is None else self.saved.step


def changes_in(saved: Saved) -> tuple[Change, ...]:
    return tuple(Change(**change) for change in saved.manifest.get("structure", ()))


def replay(model: nn.Module, parts: Parts, changes: Sequence[Change]) -> nn.Module:
    """The structure after those changes, of a model as configured."""
    for change in changes:
        if change.record is not None:
            model = parts[change.part].replay(model, change.record)
    return model


def due(parts: Parts, changes: Sequence[Change], step: int, steps: int) -> list[str]:
    """The parts that change the model before this step, and have not yet."""
    past = {(change.part, change.step) for change in changes} | {(c.part, step) for c in changes if c.record is None}
    return [name for name, part in parts.items() if step in part.borders(steps) and (name, step) not in past]


def next_border(parts: Parts, changes: Sequence[Change], step: int, steps: int) -> int:
    """The step at which training pauses for the next change; ``steps`` where none comes before."""
    undone = {change.part for change in changes if change.record is None}
    later = {border for name, part in parts.items() if name not in undone for border in part.borders(steps)}
    return min((border for border in later if step < border < steps), default=steps)


def unreached(parts: Parts, changes: Sequence[Change], step: int, steps: int) -> list[str]:
    """What the user should know of changes that training ended too early for."""
    undone = {change.part for change in changes if change.record is None}
    missed = {name: [b for b in part.borders(steps) if step <= b < steps] for name, part in parts.items()}
    made = {(change.part, change.step) for change in changes}
    return [
        f"{name} was to change the model before step {later[0]}; training ended at step {step}"
        for name, borders in missed.items()
        if name not in undone and (later := [b for b in borders if (name, b) not in made])
    ]


class Watch:
    """Told of every change; this one does not look."""

    def before(self, name: str, model: nn.Module, border: Border, around: Any) -> nn.Module | None:
        """The model is about to be changed by a part. Returns a copy of it as it is, if one was made."""
        return None

    def tell(self, name: str, notes: Sequence[str]) -> None:
        """A change that is not measured has been made."""

    def after(self, name: str, model: nn.Module, border: Border, around: Any, notes: Sequence[str]) -> bool:
        """It has been. Whether the change may stand; if not, the copy takes the model's place."""
        return True


def cross(
    model: nn.Module, parts: Parts, start: Start, border: Border, watch: Watch, around: Any
) -> tuple[nn.Module, Start]:
    """Make the changes that are due where a phase starts, of a model that ``replay`` has made.

    Returns the model, with the weights that it has now, and the start with all else that training goes on from.
    ``around`` is what it takes to evaluate the model.
    """
    names = due(parts, start.changes, border.step, border.steps)
    if not names:
        return model, start
    carried = None if start.saved is None else Carried.of(start.saved)
    if carried is not None:
        model.load_state_dict(carried.tensors("model"))
    changes = list(start.changes)
    for name in names:
        model.eval()
        shapes = {parameter: value.shape for parameter, value in model.named_parameters()}
        measured = parts[name].measured
        as_it_was = watch.before(name, model, border, around) if measured else None
        changed = parts[name].change(model, border)
        if not measured:
            watch.tell(name, changed.notes)
        stands = not measured or watch.after(name, changed.model, border, around, changed.notes)
        if stands or as_it_was is None:
            model = changed.model
            changes.append(Change(name, border.step, changed.record))
            if carried is not None:
                carried.follow(changed, shapes)
        else:
            model = as_it_was
            changes.append(Change(name, border.step, None))
    model.train()
    return model, Start(carried, tuple(changes))


@dataclass(frozen=True)
class Carried(Saved):
    """A checkpoint, as the changes made since have left its state."""

    held: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(saved: Saved) -> Carried:
        held = {name: saved.tensors(name) for name in ("model", "optimizer", "average", "compression")}
        # What a strategy or a communication keeps of its own is of the shapes before: it begins afresh.
        manifest = {**saved.manifest, "strategy": None, "communication": None}
        return Carried(saved.folder, manifest, held, saved.state()["optimizer"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        return self.held[name] if name in self.held else super().tensors(name)

    def state(self) -> dict[str, Any]:
        """Without what was best: it was another model's."""
        state = super().state()
        progress = {**state["progress"], "best": None, "best_step": None}
        return {**state, "optimizer": self.values, "best": {}, "progress": progress}

    def follow(self, changed: Changed, shapes: Mapping[str, torch.Size]) -> None:
        """Bring all that lies beside the weights to the shapes that these have now."""
        parameters = dict(changed.model.named_parameters())
        kept = {name: _kept(name, value, changed, shapes.get(name)) for name, value in parameters.items()}
        odd = {
            name
            for key, value in self.held["optimizer"].items()
            if (name := key.rpartition("/")[0]) in kept
            and kept[name] is not ALL
            and value.dim()
            and value.shape != shapes.get(name)
        }
        for part in ("optimizer", "compression"):
            self.held[part] = {
                key: new
                for key, value in self.held[part].items()
                if (new := _follow(value, kept.get(_owner(part, key)), shapes.get(_owner(part, key)))) is not None
                and _owner(part, key) not in odd
            }
        for key in list(self.values):
            name = key.rpartition("/")[0]
            if kept.get(name) is None or name in odd:
                del self.values[key]
        types = {name: value.dtype for name, value in self.held["model"].items()}  # of precision=bf16_pure, for one
        weights = {
            name: value.detach().to("cpu", types.get(name, value.dtype), copy=True)
            for name, value in changed.model.state_dict().items()
        }
        self.held["model"] = weights
        if self.held["average"]:
            averages = {
                name: _follow(value, kept.get(name), shapes.get(name)) for name, value in self.held["average"].items()
            }
            self.held["average"] = {n: averages[n] if averages.get(n) is not None else w for n, w in weights.items()}  # type: ignore[misc]


ALL = torch.tensor(-1)
"""In the place of indices: every number of a parameter is kept where it was."""


def _kept(name: str, parameter: Tensor, changed: Changed, before: torch.Size | None) -> Tensor | None:
    """Which of a parameter's numbers before it holds; ``ALL``, or None for one that is new."""
    if changed.kept is None:
        return ALL if parameter.shape == before else None
    indices = changed.kept.get(name)
    return None if indices is None else indices.cpu()


def _owner(part: str, key: str) -> str:
    """The parameter that a tensor belongs to: it is called ``<parameter>/<entry>``, or ``<pass>/.../<parameter>``."""
    return key.rpartition("/")[0 if part == "optimizer" else 2]


def _follow(value: Tensor, kept: Tensor | None, before: torch.Size | None) -> Tensor | None:
    if kept is None:
        return None
    if kept is ALL or value.shape != before:
        return value
    return value.reshape(-1)[kept.reshape(-1)].reshape(kept.shape)
