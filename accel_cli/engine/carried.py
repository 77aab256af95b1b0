"""A checkpoint's state, carried over a change of the model's structure: what lies beside the weights follows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from accel_cli.engine.checkpoint_files import Saved
from accel_cli.structure import Changed

ALL = torch.tensor(-1)
"""In the place of indices: every number of a parameter is kept where it was."""


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
