"""Transforms, one after another: what changes a training batch, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import takewhile
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from accel_cli.augment.draws import Draws, sent
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem

Rows = NDArray[numpy.int64]


class Transform:
    """The harmless transform: inputs as they are.

    ``names`` of its draws; ``on_stored``: it works on inputs as they are stored, and where nothing before it does not,
    it comes before they are normalised. ``in_place``: it may write to what it is given.
    """

    names: tuple[str, ...] = ()
    on_stored = False
    in_place = False

    def __init__(self, config: Any, description: DataDescription) -> None:
        self.config = config
        self.description = description

    def __call__(self, inputs: Tensor, draws: Draws) -> Tensor:
        """[n, ...] to the same shape, dtype and device, each sample by its own draws."""
        return inputs

    def refuse(self, why: str, fix: str, key: str = "") -> ConfigError:
        """The error for a choice that the data cannot take; ``key`` is the one to blame, if it is one."""
        option = self.config.option
        value = f".transforms.{option}.{key}={getattr(self.config, key)}" if key else f"={option}"
        return ConfigError(Problem(f"augment{value}", why, fix))

    def require_images(self) -> tuple[int, int, int]:
        """(channels, height, width). Raise ConfigError where the inputs are not images."""
        if self.description.input != "image":
            raise self.refuse(
                f"changes images; the inputs of this data are {self.description.input}", "try augment=none"
            )
        channels, height, width = self.description.input_shape
        return channels, height, width


class Mixing(Transform):
    """Mixes a sample with a partner: another sample of the set, in the same epoch, named by the sample's own hash."""

    def partners(self, draws: Draws) -> tuple[Rows, Rows]:
        """(places of those of the batch that are mixed, data-set indices of their partners), int64 [m] both."""
        raise NotImplementedError

    def mix(self, inputs: Tensor, targets: Any, draws: Draws) -> tuple[Tensor, Any]:
        """(inputs [n, ...], targets) from those of the n samples and their m partners behind each other."""
        raise NotImplementedError

    def joined(self, other: Mixing) -> Mixing:
        """One that does what either of the two does."""
        raise NotImplementedError


class Growing(Transform):
    """Changes the size of all samples of a batch, by the step alone."""

    def grow(self, inputs: Tensor, targets: Any, progress: float) -> tuple[Tensor, Any]:
        """(inputs, targets) as large as they are to be when the share ``progress`` of the run is done."""
        raise NotImplementedError


class Pipeline:
    """The chosen transforms in order; the loader calls it on every training batch.

    Those that work on stored inputs come before normalising, up to the first that does not. What grows comes last.
    """

    def __init__(self, transforms: Sequence[Transform], seed: int, steps: int = 1) -> None:
        """``steps`` of the whole run: sizes that grow follow the share of it that is done."""
        self.transforms = tuple(transforms)
        self.seed = seed
        self.steps = steps
        self._growing = [t for t in transforms if isinstance(t, Growing)]
        self.grows = bool(self._growing)
        plain = [t for t in transforms if not isinstance(t, Growing)]
        self._stored = list(takewhile(lambda t: t.on_stored, plain))
        rest = plain[len(self._stored) :]
        self._mixing = _joined([t for t in rest if isinstance(t, Mixing)])
        self._before = list(takewhile(lambda t: not isinstance(t, Mixing), rest))
        self._after = [t for t in rest[len(self._before) :] if not isinstance(t, Mixing)]
        self._in_place = any(t.in_place for t in (*self._before, *self._after))
        self._names = tuple(dict.fromkeys(name for t in transforms for name in t.names))

    def keys(self, epochs: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(epochs, indices) of all samples to read for a batch of these, int64 [n]: its own first."""
        if self._mixing is None:
            return epochs, indices
        places, partners = self._mixing.partners(Draws(self.seed, epochs, indices, self._mixing.names))
        of_partners = epochs[torch.from_numpy(places)]
        return torch.cat([epochs, of_partners]), torch.cat([indices, torch.from_numpy(partners)])

    def __call__(
        self,
        inputs: Tensor,
        targets: Any,
        epochs: Tensor,
        indices: Tensor,
        step: int,
        normalise: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """(inputs, targets) of the samples that are named, int64 [n], from what was read for ``keys``.

        ``normalise`` makes of stored inputs those that a model takes.
        """
        draws = Draws(self.seed, *self.keys(epochs, indices), self._names)
        given = inputs.data_ptr()
        for transform in self._stored:
            inputs = transform(inputs, draws)
        if normalise is not None:
            inputs = normalise(inputs)
        if self._in_place and inputs.data_ptr() == given:
            inputs = inputs.clone()
        for transform in self._before:
            inputs = transform(inputs, draws)
        if self._mixing is not None:
            draws = draws.first(len(indices))
            inputs, targets = self._mixing.mix(inputs, targets, draws)
        for transform in self._after:
            inputs = transform(inputs, draws)
        for growing in self._growing:
            inputs, targets = growing.grow(inputs, targets, step / self.steps)
        return inputs, targets


def _joined(mixing: Sequence[Mixing]) -> Mixing | None:
    return reduce(lambda one, other: one.joined(other), mixing) if mixing else None


def replaced(rows: Tensor, places: Rows, others: Tensor) -> Tensor:
    """``rows`` [n, ...] with ``others`` [m, ...] at ``places`` [m]; index_copy would take five times as long."""
    order = numpy.arange(len(rows))
    order[places] = numpy.arange(len(rows), len(rows) + len(others))
    return torch.cat([rows, others]).index_select(0, sent(order, rows.device))
