"""Handwritten digits of 8x8 pixels, read from scikit-learn's own data file."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from accel_cli.data.arrays import ArrayDataset
from accel_cli.data.base import SPLITS, Data, Loaded, sample_counts
from accel_cli.data.cut import cut
from accel_cli.data.statistics import mean_and_std
from accel_cli.description import DataDescription
from accel_cli.errors import ResourceError


class Digits(Data):
    """1,797 images, uint8 [1, 8, 8] of 0 to 16, in 10 classes.

    E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
    """

    def load(self) -> Loaded:
        images, targets = read_digits()
        parts = cut(
            np.arange(len(images)),
            shares={"validation": self.config.validation_share, "test": self.config.test_share},
            seed=self.seed,
            labels=targets,
        )
        mean, std = mean_and_std(images, parts["train"])
        inputs, classes = torch.from_numpy(images), torch.from_numpy(targets)
        return Loaded(
            DataDescription(
                input="image",
                target="class",
                input_shape=(1, 8, 8),
                classes=10,
                class_names=tuple("0123456789"),
                mean=mean,
                std=std,
                **sample_counts(parts),
            ),
            {name: ArrayDataset(inputs, classes, torch.from_numpy(parts[name])) for name in SPLITS},
        )


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [1797, 1, 8, 8] and classes int64 [1797].

    Raises ResourceError where scikit-learn is not installed.
    """
    # Importing scikit-learn costs more than a second, and its file is all that is needed.
    package = find_spec("sklearn")
    path = Path(package.origin).parent / "datasets/data/digits.csv.gz" if package and package.origin else None
    if path is None or not path.is_file():
        raise ResourceError(
            "data=digits reads scikit-learn's data file, and it is not installed",
            "pip install scikit-learn, or try data=synthetic",
        )
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return np.ascontiguousarray(table[:, :-1]).reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
