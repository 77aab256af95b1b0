"""Small data sets, and a loader made of the usual parts."""

import random
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch.utils.data import Dataset

from accel_cli.augment.base import Pipeline
from accel_cli.augment.basic import Basic
from accel_cli.config.schema import augment, loader
from accel_cli.description import DataDescription
from accel_cli.loader.order import Order

IMAGES = DataDescription(
    input="image", target="class", input_shape=(3, 8, 8), classes=5, mean=(120.0, 100.0, 90.0), std=(60.0, 50.0, 0.0)
)
CONFIGS = {
    "memory": loader.Memory(option="memory"),
    "device": loader.Device(option="device"),
    **{f"{n} threads": loader.Threads(option="threads", threads=n, prefetch=2, timeout=60.0) for n in (1, 3)},
    **{str(n): loader.Workers(option="workers", workers=n, prefetch=2, timeout=60.0) for n in (0, 1, 2)},
}


class Arrays:
    """An array data set of images, memory-mapped like those of the shipped data."""

    def __init__(self, samples: int, folder: Path) -> None:
        stored = numpy.memmap(folder / "images", numpy.uint8, "w+", shape=(samples, 3, 8, 8))
        stored[:] = numpy.random.default_rng(0).integers(0, 256, stored.shape)
        self.inputs, self.targets = torch.from_numpy(stored), torch.arange(samples) % 5

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int):
        return self.inputs[index], int(self.targets[index])

    def batch(self, indices):
        return self.inputs.index_select(0, indices), self.targets.index_select(0, indices)

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.targets.nbytes

    def to(self, device):
        return self  # the tests' device is the host


class Items(Dataset):
    """The same, map-style."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int):
        return self.arrays[index]


class Drawn(Items):
    """Draws from all three generators at each read, as a user's own transforms do."""

    def __getitem__(self, index: int):
        image, target = super().__getitem__(index)
        noise = torch.rand(()) + random.random() + float(numpy.random.rand())
        return image + noise, target


@pytest.fixture
def arrays(tmp_path):
    return Arrays(37, tmp_path)


@pytest.fixture
def make():
    """A loader of 8 samples a step in 2 micro-batches, on 1 of ``world`` ranks; closed at the end."""
    opened = []

    def build(
        kind,
        config,
        dataset,
        *,
        augmented=False,
        collate=None,
        description=IMAGES,
        rank=0,
        world=1,
        micro=2,
        sharing=None,
    ):
        settings = augment.Basic(option="basic", flip=0.5, crop=2, rotate=0.0, scale=0.0)
        samples = len(dataset) if hasattr(dataset, "__len__") else None
        made = kind(
            CONFIGS[config] if isinstance(config, str) else config,
            dataset=dataset,
            description=description,
            order=Order(1, samples, 8, rank, world),
            micro_batches=micro,
            augment=Pipeline([Basic(settings, description)], 5) if augmented else None,
            device=torch.device("cpu"),
            collate=collate,
            seed=1,
            sharing=sharing,
        )
        opened.append(made)
        return made

    yield build
    for made in opened:
        made.close()


@pytest.fixture
def kinds():
    return SimpleNamespace(Items=Items, Drawn=Drawn, Arrays=Arrays)
