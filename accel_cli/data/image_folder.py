"""The user's own images in train/<class>/*."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from accel_cli.data.base import Data, Loaded, Report, Split, quiet
from accel_cli.data.cache import cache_folder, cached, fingerprint
from accel_cli.data.decode import UNREADABLE, decode_all, image_size
from accel_cli.data.image_files import Images, find_images
from accel_cli.data.stored_images import load_images, save_images
from accel_cli.errors import ConfigError, Problem

MOST_PROBLEMS = 10


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
        paths = [os.path.join(images.root, name) for name in images.names]
        size = (self.config.image_size,) * 2 if self.config.image_size else None
        width, height = size or first_size(images, paths, where)
        shape = (len(paths), self.config.channels, height, width)

        def build(entry: Path) -> None:
            decoded = np.lib.format.open_memmap(str(entry / "inputs.npy"), mode="w+", dtype=np.uint8, shape=shape)
            moments, unreadable = decode_all(paths, decoded, report)
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
            content=fingerprint(images.root, images.names),
            bytes_needed=int(np.prod(shape, dtype=np.int64)),
            build=build,
        )


def first_size(images: Images, paths: list[str], where: str) -> tuple[int, int]:
    """Width and height of the first training image that can be read."""
    unreadable: list[tuple[str, str]] = []
    for path in paths[: images.sizes["train"]]:
        try:
            return image_size(path)
        except UNREADABLE:
            unreadable.append((path, "not an image that PIL knows"))
    raise ConfigError(unreadable_problems(images.root, where, unreadable))


def unreadable_problems(root: Path, where: str, unreadable: list[tuple[str, str]]) -> list[Problem]:
    """One problem a file, up to a number that a screen holds."""
    fix = "remove or replace the file"
    problems = [
        Problem(where, f"{Path(path).relative_to(root)}: {reason}", fix) for path, reason in unreadable[:MOST_PROBLEMS]
    ]
    if len(unreadable) > MOST_PROBLEMS:
        problems.append(Problem(where, f"and {len(unreadable) - MOST_PROBLEMS} more unreadable images", fix))
    return problems
