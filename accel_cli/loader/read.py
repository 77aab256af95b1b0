"""Read the samples of one batch from a data set, in this process or in a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import default_collate

from accel_cli.errors import AccelError
from accel_cli.loader.randomness import restored, seed_sample

Collate = Callable[[list[Any]], Any]


class Reader:
    """Callable (epochs [n], indices [n]) -> a raw batch on the CPU.

    An array data set (one with ``batch``) is gathered at once; one that differs by epoch says ``by_epoch`` and is asked
    for ``batch(indices, epochs)``. Any other is read sample by sample, each after seeding
    random, numpy and torch from (seed, epoch, index): its draws are the sample's own, in whatever process. Without a
    seed no generator is touched.
    """

    def __init__(self, dataset: Any, *, collate: Collate | None, seed: int | None) -> None:
        self.dataset = dataset
        self.seed = seed
        self.collate = collate or default_collate
        self.is_array = collate is None and has_batch(dataset)
        self._by_epoch = getattr(dataset, "by_epoch", False)

    def __call__(self, epochs: Tensor, indices: Tensor) -> Any:
        if self.is_array:
            return self.dataset.batch(indices, epochs) if self._by_epoch else self.dataset.batch(indices)
        if self.seed is None:
            return self.collate(self.items(epochs.tolist(), indices.tolist()))
        with restored():
            return self.collate(self.items(epochs.tolist(), indices.tolist()))

    def items(self, epochs: list[int], indices: list[int]) -> list[Any]:
        """The samples themselves. It leaves the random state behind that the last one left."""
        return [self._item(epoch, index) for epoch, index in zip(epochs, indices, strict=True)]

    def _item(self, epoch: int, index: int) -> Any:
        if self.seed is not None:
            seed_sample(self.seed, epoch, index)
        try:
            return self.dataset[index]
        except AccelError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise AccelError(f"sample {index} of the data could not be read: {reason}") from error


def has_batch(dataset: Any) -> bool:
    """Whether it is an array data set: one that gathers many samples at once."""
    return callable(getattr(dataset, "batch", None))
