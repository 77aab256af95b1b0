"""CIFAR and MNIST: public image sets that torchvision can download."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torchvision import datasets

from accel_cli.data.base import Data, Loaded, Report, quiet
from accel_cli.data.cache import cache_folder, cached, check_space, fingerprint, locked
from accel_cli.data.statistics import image_moments
from accel_cli.data.stored_images import load_images, save_images
from accel_cli.errors import ResourceError


class Source(NamedTuple):
    """A torchvision data set, its files below ``data.root``, and the room that download and arrays take."""

    dataset: Any
    files: tuple[str, ...]
    megabytes: int
    digits: bool = False


_CIFAR10 = tuple(f"cifar-10-batches-py/{name}" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"))
_CIFAR100 = tuple(f"cifar-100-python/{name}" for name in ("train", "test", "meta"))
_IDX = tuple(f"raw/{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))

SOURCES = {
    "cifar10": Source(datasets.CIFAR10, (*_CIFAR10, "cifar-10-batches-py/batches.meta"), 550),
    "cifar100": Source(datasets.CIFAR100, _CIFAR100, 550),
    "mnist": Source(datasets.MNIST, tuple(f"MNIST/{name}" for name in _IDX), 130, digits=True),
    "fashion_mnist": Source(datasets.FashionMNIST, tuple(f"FashionMNIST/{name}" for name in _IDX), 150),
}


class Downloaded(Data):
    """Images uint8 [channels, height, width]; test is the published one, validation is cut from train."""

    def prepare(self, report: Report) -> None:
        self._entry(report)

    def load(self) -> Loaded:
        return load_images(self._entry(quiet), shares={"validation": self.config.validation_share}, seed=self.seed)

    def _entry(self, report: Report) -> Path:
        source, name = SOURCES[self.config.option], self.config.option
        cache = cache_folder(self.config.cache)
        root = cache if self.config.root is None else Path(self.config.root).expanduser()
        if not all((root / file).is_file() for file in source.files):
            report(f"download {name}", 0, 1)
            with locked(cache, f"{name}-download"):
                download(source, root, name)
            report(f"download {name}", 1, 1)

        def build(entry: Path) -> None:
            report(f"unpack {name}", 0, 1)
            unpack(source, root, name, entry)
            report(f"unpack {name}", 1, 1)

        return cached(
            cache,
            name=name,
            source={"root": str(root.resolve())},
            content=fingerprint(root, source.files),
            bytes_needed=source.megabytes * 10**6 // 2,
            build=build,
        )


def download(source: Source, root: Path, name: str) -> None:
    """Have torchvision fetch what is not there. Raises ResourceError where it can't, saying what files would do."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        check_space(root, source.megabytes * 10**6)
        with _silence():
            source.dataset(root, train=True, download=True)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "reason", None) or str(error).strip().splitlines()[-1]
        raise ResourceError(
            f"cannot download {name} into data.root={root}: {reason}",
            f"put its files there yourself ({', '.join(source.files)}), or try data=digits",
        ) from error


def unpack(source: Source, root: Path, name: str, entry: Path) -> None:
    """Write train and test as arrays, channels first."""
    try:
        train, test = (source.dataset(root, train=train) for train in (True, False))
    except (OSError, RuntimeError, ValueError, AssertionError) as error:
        raise ResourceError(
            f"the files of {name} in data.root={root} cannot be read: {error}",
            f"remove {', '.join(source.files)}, so that they are downloaded again",
        ) from error
    images = np.concatenate([_channels_first(np.asarray(part.data)) for part in (train, test)])
    np.save(entry / "inputs.npy", images, allow_pickle=False)
    save_images(
        entry,
        targets=np.concatenate([np.asarray(part.targets, dtype=np.int64) for part in (train, test)]),
        moments=np.concatenate([image_moments(piece) for piece in np.array_split(images, 64)]),
        class_names=list("0123456789") if source.digits else list(train.classes),
        sizes={"train": len(train), "test": len(test)},
    )


def _channels_first(images: np.ndarray) -> np.ndarray:
    return images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)


@contextlib.contextmanager
def _silence() -> Any:
    """torchvision prints its progress; a launcher has its own."""
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), contextlib.redirect_stderr(nothing):
        yield
