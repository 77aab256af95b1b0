"""Keep the whole set in the accelerator's memory: a batch is gathered, finished and augmented there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from accel_cli.loader.base import Loader
from accel_cli.loader.choose import gigabytes
from accel_cli.loader.read import Collate, Reader
from accel_cli.loader.stacked import refusal


class Device(Loader):
    """Array data sets as they are, others stacked; on a CPU the device is the host, with the same bits."""

    why = "in the device's memory"

    def __init__(self, config: Any, *, dataset: Any, collate: Collate | None, seed: int, **rest: Any) -> None:
        """Raise ConfigError for a set that is no rows of tensors, or larger than the memory that is free there."""
        super().__init__(config, dataset=dataset, collate=collate, seed=seed, **rest)
        if self.stream is not None:
            raise refusal("device", "a stream has no end that a device could hold")
        if not self.reader.is_array:
            dataset = self.sharing.stacked(dataset, collate=collate, seed=seed, option="device")
        if not can_move(dataset):
            raise refusal("device", f"{type(dataset).__name__} has no `to(device)` and no `nbytes`", "memory")
        self.sharing.agree(lambda: self._check(dataset.nbytes), each=True)
        resident = Resident(dataset.to(self.finish.device), self.finish.device)
        self.reader = Reader(resident, collate=None, seed=seed)

    def _check(self, needed: int) -> None:
        free = self.sharing.device_memory
        if free is not None and needed > free:
            why = f"the set takes {gigabytes(needed)}, {gigabytes(free)} of the device's memory is free"
            raise refusal("device", why, "memory")


class Resident:
    """An array data set on a device, asked with indices on the CPU."""

    def __init__(self, dataset: Any, device: torch.device) -> None:
        self.dataset = dataset
        self.device = device
        self.by_epoch = getattr(dataset, "by_epoch", False)

    def batch(self, indices: Tensor, *epochs: Tensor) -> Any:
        if self.device.type == "cuda":  # from pinned memory the host goes on at once
            indices = indices.pin_memory()
        return self.dataset.batch(indices.to(self.device, non_blocking=True), *epochs)


def can_move(dataset: Any) -> bool:
    """Whether it is an array data set that a device can hold."""
    return callable(getattr(dataset, "to", None)) and hasattr(dataset, "nbytes")
