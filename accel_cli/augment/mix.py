"""Samples mixed with others of the set, and their targets in the same shares."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy
import torch
from torch import Tensor

from accel_cli.augment.base import Mixing, Rows, replaced
from accel_cli.augment.beta import quantiles
from accel_cli.augment.draws import Draws, Floats, sent
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem

NAMES = ("mix", "mix.partner", "mix.partner_low", "mix.share", "mix.down", "mix.right")
Shares = Floats


class Mix(Mixing):
    """A subclass has ``blend``. ``kinds`` exclude each other for a sample, each by its probability."""

    names = NAMES
    inputs: tuple[str, ...] = ("image",)

    def __init__(self, config: Any, description: DataDescription) -> None:
        """Raise ConfigError for inputs or targets that have no mean, and for a stream, which has no partners."""
        super().__init__(config, description)
        if description.input not in self.inputs:
            raise self.refuse(f"mixes {self.inputs[0]}s; this data gives {description.input}", "try augment=none")
        if description.target not in ("class", "number"):
            raise self.refuse("mixes classes or numbers; the targets of this data are others", "try augment=none")
        if description.train_samples is None:
            raise self.refuse("takes partners by their number; a stream has none", "try augment=none")
        self.samples = description.train_samples
        self.kinds: tuple[Mix, ...] = (self,)
        self._quantiles = quantiles(config.alpha)

    def blend(self, own: Tensor, other: Tensor, share: Floats, draws: dict[str, Floats]) -> tuple[Tensor, Shares]:
        """(mixed [m, ...], what the own part is of each, [m]) for a share that was drawn for each."""
        raise NotImplementedError

    def joined(self, other: Any) -> Mix:
        both = copy(self)
        both.kinds = (*self.kinds, *other.kinds)
        if both._chance > 1 + 1e-9:
            where = ", ".join(f"augment.transforms.{kind.config.option}.probability" for kind in both.kinds)
            even = " ".join(f"augment.transforms.{kind.config.option}.probability=0.5" for kind in both.kinds)
            why = f"add up to {both._chance:g}: a sample is mixed in one way at most"
            raise ConfigError(Problem(where, why, f"try {even}"))
        return both

    @property
    def _chance(self) -> float:
        return float(sum(kind.config.probability for kind in self.kinds))

    def partners(self, draws: Draws) -> tuple[Rows, Rows]:
        places = (draws.numbers("mix") < self._chance).nonzero()[0]
        # Two draws: one of 24 bits would leave out samples of a large set.
        place = draws.numbers("mix.partner").astype(numpy.float64) + draws.numbers("mix.partner_low") * 2.0**-24
        return places, (place[places] * self.samples).astype(numpy.int64)

    def mix(self, inputs: Tensor, targets: Any, draws: Draws) -> tuple[Tensor, Any]:
        n, choice = len(draws.epochs), draws.numbers("mix")
        places = (choice < self._chance).nonzero()[0]
        own, others = inputs[:n], inputs[n:]
        shares = numpy.ones(n, numpy.float32)
        low = 0.0
        for kind in self.kinds:
            high = low + kind.config.probability
            turns = ((choice[places] >= low) & (choice[places] < high)).nonzero()[0]
            rows, low = places[turns], high
            if len(rows):
                drawn = {name: draws.numbers(name)[rows] for name in NAMES}
                share = kind._quantiles[(drawn["mix.share"] * len(kind._quantiles)).astype(numpy.int64)]
                all_of_it = len(rows) == n
                place, turn = (sent(at, inputs.device) for at in (rows, turns))
                mine, theirs = (
                    (own, others) if all_of_it else (own.index_select(0, place), others.index_select(0, turn))
                )
                mixed, shares[rows] = kind.blend(mine, theirs, share, drawn)
                own = mixed if all_of_it else replaced(own, rows, mixed)
        return own, self._targets(targets, n, places, shares)

    def _targets(self, targets: Any, n: int, places: Rows, shares: Shares) -> Tensor:
        """Classes [n + m] become probabilities float32 [n, classes]; numbers are mixed as they are."""
        if not isinstance(targets, Tensor):
            raise self.refuse(f"mixes tensors; the targets are a {type(targets).__name__}", "try augment=none")
        own, others = targets[:n], targets[n:]
        place, share = sent(places, own.device), sent(shares, own.device)
        if self.description.target == "number":
            of_row = share.view(n, *[1] * (own.dim() - 1))
            mixed = own.index_select(0, place) * of_row[place] + others * (1 - of_row[place])
            return replaced(own, places, mixed)
        classes = self.description.classes or int(targets.max()) + 1
        probabilities = torch.zeros(n, classes, device=own.device).scatter_(1, own[:, None], share[:, None])
        return probabilities.index_put_((place, others), 1 - share[place], accumulate=True)


class MixUp(Mix):
    """Weighted means. Zhang et al. 2017, arXiv:1710.09412."""

    inputs = ("image", "vector")

    def blend(self, own: Tensor, other: Tensor, share: Floats, draws: dict[str, Floats]) -> tuple[Tensor, Shares]:
        part = sent(share, own.device).view(-1, *[1] * (own.dim() - 1))
        return own * part + other * (1 - part), share


class CutMix(Mix):
    """A box of the partner, cut off at the edges; the share counts pixels. Yun et al. 2019, arXiv:1905.04899."""

    def blend(self, own: Tensor, other: Tensor, share: Floats, draws: dict[str, Floats]) -> tuple[Tensor, Shares]:
        height, width = own.shape[2:]
        side = numpy.sqrt(1 - share)
        rows, columns = _inside(height, side, draws["mix.down"]), _inside(width, side, draws["mix.right"])
        pixels = (rows.sum(1) * columns.sum(1)).astype(numpy.float32)
        rows_there, columns_there = (sent(part, own.device) for part in (rows, columns))
        box = (rows_there[:, :, None] & columns_there[:, None, :])[:, None]
        return torch.where(box, other, own), 1 - pixels / numpy.float32(height * width)


def _inside(length: int, side: Floats, place: Floats) -> Any:
    """bool [m, length]: where a box of this share of the length lies, its centre drawn from [0, 1)."""
    size = (length * side).astype(numpy.int64)
    first = (place * length).astype(numpy.int64) - size // 2
    after = numpy.arange(length) - first[:, None]
    return (after >= 0) & (after < size[:, None])
