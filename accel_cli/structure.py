"""Structure: how a run's model differs from what its configuration builds, change by change."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class Change:
    """One change, as a checkpoint's manifest keeps it."""

    part: str
    """Who made it: ``transfer``, or the name of a compression pass."""
    step: int
    """It was made before this step; at the last one, after it."""
    record: dict[str, Any] | None
    """JSON, from which ``replay`` makes the same structure of a model as configured. None: it was rolled back."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Border:
    """What a change may look at, beside the whole model: plain, on one device, in evaluation mode."""

    step: int
    steps: int
    task: Any
    example: Any
    """A batch of two samples, where the model is."""
    batches: Callable[[int], Iterable[Any]]
    """(samples) -> batches of the first so many training samples, as evaluation reads them, where the model is."""
    seed: int = 0
    """The run's: what a change draws has to follow from it."""
    outputs: Any = None
    """Makes teachers (engine/outputs.py); None once training has ended."""


class Changed(NamedTuple):
    """What a change has made."""

    model: nn.Module
    record: dict[str, Any]
    kept: dict[str, Tensor] | None = None
    """Parameter -> LongTensor of the new shape: which of the old one's numbers, counted flat, it holds. The optimizer's
    state and averages follow; parameters not named begin afresh. None: those whose name and shape are the same keep."""
    notes: tuple[str, ...] = ()
    """For the user."""


class Structural:
    """What transfer and compression have in common: a run's model may change its structure at their borders.

    At a border training ends with a checkpoint; the whole model is changed, the same on every rank; and training is set
    up again around it. A run that was killed goes on from that checkpoint in the same way.
    """

    measured = True
    """Whether what a change bought is measured: not where it makes nothing smaller, nor is meant to."""

    timed = True
    """Whether the latency of what comes of it says something: not of layers that only pretend what a runtime does."""

    def borders(self, steps: int) -> tuple[int, ...]:
        """The steps, of 0 to ``steps``, before which ``change`` is called; at ``steps``: when training has ended."""
        return ()

    def change(self, model: nn.Module, border: Border) -> Changed:
        """Change the model, in place or by another. It has to come out the same on every rank.

        Raises ConfigError for a model that cannot be changed so.
        """
        raise NotImplementedError

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        """The structure of a change that was made, on a model as it was before: names and shapes, of any values."""
        raise NotImplementedError
