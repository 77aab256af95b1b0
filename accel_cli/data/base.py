"""What every data option is: a description and three splits, made once and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, Problem

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def quiet(what: str, done: int, total: int) -> None:
    """The report of a preparation that nobody watches."""


@dataclass(frozen=True)
class Loaded:
    """A source that has been read: its facts, and a data set for each split."""

    description: DataDescription
    splits: dict[Split, Any]


class Data:
    """A source that needs no preparation; an option says in ``load`` how it is read.

    A split is an array data set (``accel_cli.data.arrays``), or for ``custom`` whatever map-style or iterable data set
    the user's factory returns. Inputs stay as stored: uint8 images NCHW, uint8 tokens, float vectors.
    """

    collate: Callable[[list[Any]], Any] | None = None
    """The user's own way from a list of samples to a batch; None: torch's."""
    views: int | None = None
    """Epochs after which a sample's draws repeat, where something of it was computed beforehand; None: never."""

    def __init__(self, config: Any, seed: int) -> None:
        self.config = config
        self.seed = seed
        self._loaded: Loaded | None = None

    def load(self) -> Loaded:
        """Read the source. Raises ConfigError for what is wrong with it, ResourceError for disk and network."""
        raise NotImplementedError

    def prepare(self, report: Report) -> None:
        """Download or decode what should happen once a node, before the ranks; safe to call again."""

    def describe(self) -> DataDescription:
        """Shapes, classes, sizes and the statistics of train. Raises as ``load`` does."""
        return self._once().description

    def split(self, name: Split) -> Any:
        """The data set of "train", "validation" or "test"; the same object at every call."""
        return self._once().splits[name]

    def content(self, name: Split) -> dict[str, Any] | None:
        """What names the content of a split of samples to be decoded, for keeping; None: nothing does."""
        return None

    def _once(self) -> Loaded:
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded


def sample_counts(splits: dict[Split, Any]) -> dict[str, Any]:
    """The description's ``train_samples``, ``validation_samples`` and ``test_samples``; None for a stream."""
    return {f"{name}_samples": len(part) if hasattr(part, "__len__") else None for name, part in splits.items()}


def refuse(where: str, why: str, fix: str = "") -> ConfigError:
    """One problem with what the user named."""
    return ConfigError(Problem(where, why, fix))
