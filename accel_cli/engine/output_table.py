"""A table of what a module gives for every sample of a split: filled once, then memory-mapped."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accel_cli.data.base import Report
from accel_cli.data.cache import check_space, load, load_facts, save
from accel_cli.errors import ConfigError, Problem
from accel_cli.loader.finish import Finish
from accel_cli.loader.read import Reader
from accel_cli.task.batch import split

STORED = {torch.bfloat16: torch.uint16}
"""Types that numpy lacks, and those that hold their bits."""
Forward = Callable[[Any], Tensor]
"""From a batch on the device, as training reads it, to [n, ...]."""


@dataclass(frozen=True)
class Table:
    """``outputs`` [views, samples, ...] and the samples' targets as stored [samples, ...], memory-mapped.

    ``targets`` is empty where nobody asked for them.
    """

    outputs: Tensor
    targets: Tensor

    @staticmethod
    def of(entry: Path) -> Table:
        """What a filled folder holds."""
        outputs = torch.from_numpy(load(entry, "outputs"))
        dtype = getattr(torch, load_facts(entry)["dtype"])
        return Table(outputs.view(dtype) if dtype in STORED else outputs, torch.from_numpy(load(entry, "targets")))

    def rows(self, epochs: Tensor, indices: Tensor) -> Tensor:
        """[n, ...] of the samples that are named, int64 [n], each in the view whose turn its epoch is."""
        views, samples = self.outputs.shape[:2]
        places = indices if views == 1 else epochs % views * samples + indices
        return self.outputs.flatten(0, 1).index_select(0, places)


@dataclass(frozen=True, kw_only=True)
class Filling:
    """All that filling a table takes; called with an empty folder. ``where`` and ``otherwise``: for problems."""

    what: str
    module: nn.Module
    forward: Forward
    reader: Reader
    finish: Finish
    plain: Finish
    """The same without augmentation."""
    samples: int
    views: int
    batch: int
    precision: Any
    report: Report
    with_targets: bool
    where: str
    otherwise: str

    def __call__(self, entry: Path) -> None:
        """Raises ConfigError for outputs of several sizes, ResourceError where they do not fit the disk."""
        stored: Any = None
        targets: list[Tensor] = []
        dtype = torch.float32
        was_training = self.module.training
        self.module.eval()
        for view in range(self.views):
            for start in range(0, self.samples, self.batch):
                indices = torch.arange(start, min(start + self.batch, self.samples))
                output, own = self._batch(torch.full_like(indices, view), indices, targets=view == 0)
                if stored is None:
                    dtype, stored = output.dtype, _room(entry / "outputs.npy", output, self.views, self.samples)
                if len(output) != len(indices) or output.shape[1:] != stored.shape[2:] or output.dtype != dtype:
                    why = f"gave {list(output.shape)} for {len(indices)} samples, and {list(stored.shape[2:])} for one"
                    fix = f"pad the samples to one size, or try {self.otherwise}"
                    raise ConfigError(Problem(self.where, why, fix))
                stored[view, start : start + len(indices)] = output.view(STORED.get(dtype, dtype)).numpy()
                targets += own
                self.report(self.what, view * self.samples + start + len(indices), self.views * self.samples)
        self.module.train(was_training)
        stored.flush()
        kept = torch.cat(targets) if targets else torch.empty(0)
        save(entry, facts={"dtype": str(dtype).removeprefix("torch.")}, targets=kept.numpy())

    def _batch(self, epochs: Tensor, indices: Tensor, *, targets: bool) -> tuple[Tensor, list[Tensor]]:
        """(the outputs of these samples, their targets if they are asked for)"""
        raw = self.reader(*self.finish.keys(epochs, indices))
        batch = self.finish(raw, epochs, indices)
        with torch.no_grad(), self.precision.autocast():
            output = self.forward(batch).detach().cpu()
        return output, [self._targets(raw, batch, epochs, indices)] if targets and self.with_targets else []

    def _targets(self, raw: Any, batch: Any, epochs: Tensor, indices: Tensor) -> Tensor:
        """As stored, of a batch as it was read; what mixes samples has read more of them, its own first."""
        (inputs, targets), finished = split(raw), split(batch)[1]
        if isinstance(targets, Tensor) and isinstance(finished, Tensor):
            own = plain = targets[: len(indices)]
            if isinstance(inputs, Tensor):
                plain = self.plain((inputs[:1], own), epochs, indices)[1]
            if plain.shape == finished.shape and torch.equal(plain.to(finished), finished):
                return own
        why = "targets are kept as stored, and augment changes them"
        raise ConfigError(Problem(self.where, why, f"try augment=none, or {self.otherwise}"))


def _room(path: Path, output: Tensor, views: int, samples: int) -> Any:
    """An array on the disk for all of them, every byte of it reserved: writing to a full disk would kill the rank."""
    shape = (views, samples, *output.shape[1:])
    kind = output.new_empty(0, device="cpu").view(STORED.get(output.dtype, output.dtype)).numpy().dtype
    needed = int(np.prod(shape)) * kind.itemsize
    check_space(path.parent, needed)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
