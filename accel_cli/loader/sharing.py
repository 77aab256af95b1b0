"""What the ranks of a node do together for their loaders. The base is a rank alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from accel_cli.loader.read import Collate
from accel_cli.loader.stacked import Stacked, stacked


class Sharing:
    """The engine hands a loader one that knows the other ranks; each method is a collective there."""

    device_memory: int | None = None
    """Bytes that are free on the rank's device; None where nobody has asked."""

    def agree(self, look: Callable[[], Any], *, each: bool = False) -> Any:
        """What ``look`` gives on the first rank, on all; an error of any is raised on all.

        One rank of a node looks, or ``each`` does.
        """
        return look()

    def stacked(self, dataset: Any, *, collate: Collate | None, seed: int, option: str) -> Stacked:
        """A map-style data set in memory. Raise ConfigError where its samples don't stack, vary by read, or don't fit.

        ``option`` is the loader that asks, for the message.
        """
        return stacked(dataset, collate=collate, seed=seed, option=option)
