"""Borders: where a run's model changes its structure, and what training goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from accel_cli.config.parts import implementation
from accel_cli.config.run import Run
from accel_cli.engine.carried import Carried
from accel_cli.engine.checkpoint_files import Saved
from accel_cli.structure import Border, Change, Structural

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


def undone(changes: Sequence[Change]) -> set[str]:
    """The parts whose changes were rolled back: they make none any more."""
    return {change.part for change in changes if change.record is None}


def due(parts: Parts, changes: Sequence[Change], step: int, steps: int) -> list[str]:
    """The parts that change the model before this step, and have not yet."""
    past = {(change.part, change.step) for change in changes} | {(part, step) for part in undone(changes)}
    return [name for name, part in parts.items() if step in part.borders(steps) and (name, step) not in past]


def next_border(parts: Parts, changes: Sequence[Change], step: int, steps: int) -> int:
    """The step at which training pauses for the next change; ``steps`` where none comes before."""
    gone = undone(changes)
    later = {border for name, part in parts.items() if name not in gone for border in part.borders(steps)}
    return min((border for border in later if step < border < steps), default=steps)


def unreached(parts: Parts, changes: Sequence[Change], step: int, steps: int) -> list[str]:
    """What the user should know of changes that training ended too early for."""
    gone = undone(changes)
    missed = {name: [b for b in part.borders(steps) if step <= b < steps] for name, part in parts.items()}
    made = {(change.part, change.step) for change in changes}
    return [
        f"{name} was to change the model before step {later[0]}; training ended at step {step}"
        for name, borders in missed.items()
        if name not in gone and (later := [b for b in borders if (name, b) not in made])
    ]


class Watch:
    """Told of every change; this one does not look."""

    def before(self, name: str, model: nn.Module, border: Border, around: Any) -> nn.Module | None:
        """The model is about to be changed by a part. Returns a copy of it as it is, if one was made."""
        return None

    def tell(self, name: str, notes: Sequence[str]) -> None:
        """A change that is not measured has been made."""

    def after(
        self, name: str, model: nn.Module, border: Border, around: Any, notes: Sequence[str], *, timed: bool
    ) -> bool:
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
        stands = not measured or watch.after(
            name, changed.model, border, around, changed.notes, timed=parts[name].timed
        )
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
