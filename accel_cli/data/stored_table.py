"""Inputs and targets of the user's own file in a cache entry, read as memory-mapped splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel_cli.data.arrays import ArrayDataset
from accel_cli.data.base import SPLITS, Data, Loaded, Report, Split, quiet, sample_counts
from accel_cli.data.cache import load, load_facts, save
from accel_cli.data.cut import cut
from accel_cli.data.statistics import mean_and_std
from accel_cli.description import DataDescription


class StoredTable(Data):
    """A file of the user's own, parsed once into the cache; an option says in ``entry`` how."""

    def entry(self, report: Report) -> Path:
        """The cache entry of the file, written by ``save_table`` where it does not stand yet."""
        raise NotImplementedError

    def prepare(self, report: Report) -> None:
        self.entry(report)

    def load(self) -> Loaded:
        shares: dict[Split, float] = {"validation": self.config.validation_share, "test": self.config.test_share}
        return load_table(self.entry(quiet), shares=shares, seed=self.seed)


def save_table(entry: Path, *, inputs: np.ndarray, targets: np.ndarray, class_names: list[str] | None) -> None:
    """Write inputs [n, features] or [n, c, h, w]; targets int64 [n] of classes, or float32 [n, outputs]."""
    save(entry, facts={"class_names": class_names}, inputs=inputs, targets=targets)


def load_table(entry: Path, *, shares: dict[Split, float], seed: int) -> Loaded:
    """The three splits of an entry, cut by ``shares`` and ``seed``."""
    class_names = load_facts(entry)["class_names"]
    inputs, targets = load(entry, "inputs"), load(entry, "targets")
    labels = None if class_names is None else np.array(targets)
    parts = cut(np.arange(len(inputs)), shares=shares, seed=seed, labels=labels)
    mean, std = mean_and_std(inputs, parts["train"])
    facts: dict[str, Any] = {"target": "number", "outputs": targets.shape[-1]}
    if class_names is not None:
        facts = {"target": "class", "classes": len(class_names), "class_names": tuple(class_names)}
    tensors = torch.from_numpy(inputs), torch.from_numpy(targets)
    return Loaded(
        DataDescription(
            input="image" if inputs.ndim == 4 else "vector",
            input_shape=tuple(inputs.shape[1:]),
            mean=mean,
            std=std,
            **sample_counts(parts),
            **facts,
        ),
        {name: ArrayDataset(*tensors, torch.from_numpy(parts[name]), entry.name) for name in SPLITS},
    )
