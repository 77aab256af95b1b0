"""The user's own images in train/<class>/*."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accel_cli.data.base import SPLITS, Data, Loaded, Report, Split, quiet, refuse
from accel_cli.data.cache import cache_folder, cached, fingerprint
from accel_cli.data.decode import UNREADABLE, decode_all, image_size
from accel_cli.data.stored_images import load_images, save_images
from accel_cli.errors import ConfigError, Problem

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp"}
FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
MOST_PROBLEMS = 10


@dataclass(frozen=True)
class Images:
    """Every image of a folder, split by split."""

    root: Path
    paths: list[Path]
    targets: list[int]
    class_names: list[str]
    sizes: dict[Split, int]


class ImageFolder(Data):
    """Folders of images, one a class, decoded once into the cache as uint8 [channels, height, width]."""

    def prepare(self, report: Report) -> None:
        self._entry(report)

    def load(self) -> Loaded:
        shares: dict[Split, float] = {
            "validation": self.config.validation_share,
            "test": self.config.test_share,
        }
        return load_images(self._entry(quiet), shares=shares, seed=self.seed)

    def _entry(self, report: Report) -> Path:
        where = f"data.root={self.config.root}"
        images = find_images(Path(self.config.root).expanduser(), where)
        size = (self.config.image_size,) * 2 if self.config.image_size else None
        # Everything is looked at before a byte is decoded, also where the size has to come from an image.
        width, height = size or first_size(images, where)
        shape = (len(images.paths), self.config.channels, height, width)

        def build(entry: Path) -> None:
            decoded = np.lib.format.open_memmap(str(entry / "inputs.npy"), mode="w+", dtype=np.uint8, shape=shape)
            moments, unreadable = decode_all(images.paths, decoded, report)
            if unreadable:
                raise ConfigError(unreadable_problems(images.root, where, unreadable))
            decoded.flush()
            save_images(
                entry,
                targets=np.array(images.targets, dtype=np.int64),
                moments=moments,
                class_names=images.class_names,
                sizes=images.sizes,
            )

        return cached(
            cache_folder(self.config.cache),
            name="image_folder",
            source={"root": str(images.root.resolve()), "shape": shape[1:]},
            content=fingerprint(images.root, images.paths),
            bytes_needed=int(np.prod(shape, dtype=np.int64)),
            build=build,
        )


def find_images(root: Path, where: str) -> Images:
    """The images below ``root``, classes and files in sorted order. Raises ConfigError with all that is wrong."""
    if not (root / "train").is_dir():
        missing = "no such folder" if not root.is_dir() else "has no folder train"
        raise refuse(where, missing, "give a folder that holds train/<class>/*.jpg, and perhaps test/ and validation/")
    found = {split: _classes(root, names) for split, names in FOLDERS.items()}
    class_names = sorted(found["train"] or {})
    problems = list(_problems(found, where))
    if problems:
        raise ConfigError(problems)
    numbers = {name: number for number, name in enumerate(class_names)}
    rows = [
        (path, numbers[name])
        for split in SPLITS
        for name, paths in sorted((found[split] or {}).items())
        for path in paths
    ]
    return Images(
        root,
        paths=[path for path, _ in rows],
        targets=[target for _, target in rows],
        class_names=class_names,
        sizes={split: sum(map(len, classes.values())) for split, classes in found.items() if classes},
    )


def first_size(images: Images, where: str) -> tuple[int, int]:
    """Width and height of the first training image that can be read."""
    unreadable: list[tuple[Path, str]] = []
    for path in images.paths[: images.sizes["train"]]:
        try:
            return image_size(path)
        except UNREADABLE:
            unreadable.append((path, "not an image that PIL knows"))
    raise ConfigError(unreadable_problems(images.root, where, unreadable))


def unreadable_problems(root: Path, where: str, unreadable: list[tuple[Path, str]]) -> list[Problem]:
    fix = "remove or replace the file"
    problems = [
        Problem(where, f"{path.relative_to(root)}: {reason}", fix) for path, reason in unreadable[:MOST_PROBLEMS]
    ]
    if len(unreadable) > MOST_PROBLEMS:
        problems.append(Problem(where, f"and {len(unreadable) - MOST_PROBLEMS} more unreadable images", fix))
    return problems


def _classes(root: Path, names: tuple[str, ...]) -> dict[str, list[Path]] | None:
    """Class -> its images at any depth; None where none of the folders is there."""
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    if folder is None:
        return None
    classes = [child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
    return {child.name: _images(child) for child in classes}


def _images(folder: Path) -> list[Path]:
    return sorted(
        Path(place, file)
        for place, _, files in os.walk(folder, followlinks=True)
        for file in files
        if Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")
    )


def _problems(found: dict[Split, dict[str, list[Path]] | None], where: str) -> Any:
    train = found["train"] or {}
    if len(train) < 2:
        what = f"train holds one class only, {next(iter(train))}" if train else "train holds no class folders"
        yield Problem(where, what, "give each class a folder: train/<class>/*.jpg")
    for split, classes in found.items():
        for name, paths in sorted((classes or {}).items()):
            if not paths:
                yield Problem(where, f"{split}/{name} holds no images", f"give it some ({' '.join(sorted(SUFFIXES))})")
        if split != "train" and classes is not None and not classes:
            yield Problem(
                where, f"{split} holds no class folders", f"fill it, or remove it: {split} is then cut from train"
            )
        unknown = sorted(set(classes or {}) - set(train))
        if unknown:
            yield Problem(
                where, f"{split} has classes that train has not: {', '.join(unknown)}", "name the folders alike"
            )
