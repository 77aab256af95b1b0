"""Images with classes in a cache entry: written once by any source, read as memory-mapped splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel_cli.data.arrays import ArrayDataset
from accel_cli.data.base import SPLITS, Loaded, Split, sample_counts
from accel_cli.data.cache import load, load_facts, save
from accel_cli.data.cut import cut
from accel_cli.data.statistics import mean_and_std_of_images
from accel_cli.description import DataDescription


def save_images(
    entry: Path, *, targets: np.ndarray, moments: np.ndarray, class_names: list[str], sizes: dict[Split, int]
) -> None:
    """Write all but the images, which lie in ``inputs.npy``: the splits of ``sizes`` behind each other."""
    save(entry, facts={"class_names": class_names, "sizes": sizes}, targets=targets, moments=moments)


def load_images(entry: Path, *, shares: dict[Split, float], seed: int) -> Loaded:
    """The three splits of an entry; those it lacks are cut from train by ``shares`` and ``seed``."""
    facts = load_facts(entry)
    images, targets, moments = (load(entry, name) for name in ("inputs", "targets", "moments"))
    parts = _parts(facts["sizes"], targets, shares, seed)
    train = parts["train"]
    mean, std = mean_and_std_of_images(moments[train], len(train), pixels=int(np.prod(images.shape[2:])))
    inputs, classes = torch.from_numpy(images), torch.from_numpy(np.array(targets))
    return Loaded(
        DataDescription(
            input="image",
            target="class",
            input_shape=tuple(images.shape[1:]),
            classes=len(facts["class_names"]),
            class_names=tuple(facts["class_names"]),
            mean=mean,
            std=std,
            **sample_counts(parts),
        ),
        {name: ArrayDataset(inputs, classes, torch.from_numpy(parts[name]), entry.name) for name in SPLITS},
    )


def _parts(
    sizes: dict[Split, int], targets: np.ndarray, shares: dict[Split, float], seed: int
) -> dict[Split, np.ndarray]:
    parts: dict[Split, np.ndarray] = {}
    start = 0
    for name, size in sizes.items():
        parts[name] = np.arange(start, start + size)
        start += size
    missing: dict[Split, Any] = {name: share for name, share in shares.items() if name not in parts}
    if missing:
        train = parts["train"]
        parts |= cut(train, shares=missing, seed=seed, labels=np.array(targets[train]))
    return parts
