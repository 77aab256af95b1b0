"""Find the images of a folder, class by class, and everything that is wrong with its layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from accel_cli.data.base import SPLITS, Split, refuse
from accel_cli.errors import ConfigError, Problem

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
}
Classes = dict[str, list[str]]
"""Class -> names of its images, below the root. There may be millions: strings, where paths would take seconds."""


@dataclass(frozen=True)
class Images:
    """Every image of a folder: train, validation and test behind each other, those that it has."""

    root: Path
    names: list[str]
    targets: list[int]
    class_names: list[str]
    sizes: dict[Split, int]


def find_images(root: Path, where: str) -> Images:
    """The images below ``root``, classes and files in sorted order. Raises ConfigError with all that is wrong."""
    if not (root / "train").is_dir():
        missing = "has no folder train" if root.is_dir() else "no such folder"
        raise refuse(where, missing, "give a folder that holds train/<class>/*.jpg, and perhaps test/ and validation/")
    found = {split: classes for split in SPLITS if (classes := _classes(root, FOLDERS[split])) is not None}
    problems = list(_problems(found, where))
    if problems:
        raise ConfigError(problems)
    class_names = sorted(found["train"])
    numbers = {name: number for number, name in enumerate(class_names)}
    rows = [
        (name, numbers[class_name])
        for classes in found.values()
        for class_name, names in sorted(classes.items())
        for name in names
    ]
    return Images(
        root,
        names=[name for name, _ in rows],
        targets=[target for _, target in rows],
        class_names=class_names,
        sizes={split: sum(map(len, classes.values())) for split, classes in found.items()},
    )


def _classes(root: Path, folders: tuple[str, ...]) -> Classes | None:
    """Images at any depth below each class; None where none of the folders is there."""
    folder = next((root / name for name in folders if (root / name).is_dir()), None)
    if folder is None:
        return None
    classes = [child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")]
    return {name: sorted(_images(root, f"{folder.name}/{name}")) for name in classes}


def _images(root: Path, folder: str) -> Iterator[str]:
    start = len(os.path.join(root, ""))
    for place, _, files in os.walk(os.path.join(root, folder), followlinks=True):
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                yield os.path.join(place[start:], file)


def _problems(found: dict[Split, Classes], where: str) -> Iterator[Problem]:
    train = found["train"]
    if len(train) < 2:
        what = f"train holds one class only, {next(iter(train))}" if train else "train holds no class folders"
        yield Problem(where, what, "give each class a folder: train/<class>/*.jpg")
    for split, classes in found.items():
        for name in sorted(name for name, images in classes.items() if not images):
            yield Problem(where, f"{split}/{name} holds no images", f"give it some ({' '.join(SUFFIXES)})")
        if not classes and split != "train":
            fix = f"fill it, or remove it: {split} is then cut from train"
            yield Problem(where, f"{split} holds no class folders", fix)
        if unknown := sorted(set(classes) - set(train)):
            why = f"{split} has classes that train has not: {', '.join(unknown)}"
            yield Problem(where, why, "name the folders alike")
