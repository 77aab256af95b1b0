"""Text as a stream of bytes, cut into train, validation and test from front to back."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from accel_cli.data.arrays import WindowDataset
from accel_cli.data.base import Data, Loaded, Report, Split, refuse, sample_counts
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError, ResourceError

NOT_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}


class Text(Data):
    """Any file: each byte is a token. A large one is memory-mapped, not read."""

    def read(self) -> np.ndarray:
        """The whole stream, uint8 [bytes]."""
        path, where = Path(self.config.path).expanduser(), f"data.path={self.config.path}"
        if not path.is_file():
            raise refuse(where, "is a folder" if path.is_dir() else "no such file", "give the path of a text file")
        try:
            if path.stat().st_size == 0:
                raise refuse(where, "is empty", "give a file that holds text")
            return np.memmap(path, dtype=np.uint8, mode="c")
        except OSError as error:
            raise refuse(where, f"cannot be read: {error.strerror}", "check its permissions") from error

    def prepare(self, report: Report) -> None:
        self.read()

    def load(self) -> Loaded:
        splits = cut_stream(self.read(), self.config.length, self.config.validation_share, self.config.test_share)
        return Loaded(
            DataDescription(
                input="tokens",
                target="next_token",
                input_shape=(self.config.length,),
                vocabulary=256,
                bytes_per_token=1.0,
                **sample_counts(splits),
            ),
            splits,
        )


class StandardLibraryText(Text):
    """The .py files of the running Python's standard library, in sorted order, without its tests."""

    def read(self) -> np.ndarray:
        pieces, room = [], self.config.max_bytes
        for path in library_files():
            piece = path.read_bytes()[:room]
            pieces.append(piece)
            room = None if room is None else room - len(piece)
            if room == 0:
                break
        if not pieces:
            raise ResourceError(
                f"no .py file of the standard library in {sysconfig.get_path('stdlib')}",
                "try data=text data.path=some/file.txt",
            )
        return np.frombuffer(bytearray(b"".join(pieces)), dtype=np.uint8)


def library_files() -> Iterator[Path]:
    for folder, folders, files in os.walk(sysconfig.get_path("stdlib")):
        folders[:] = sorted(set(folders) - NOT_LIBRARY)
        yield from (Path(folder, file) for file in sorted(files) if file.endswith(".py"))


def cut_stream(stream: np.ndarray, length: int, validation_share: float, test_share: float) -> dict[Split, Any]:
    """Train in front, validation behind it, test at the end: text is never shuffled across a border.

    Raises ConfigError where a part is shorter than one window and the token after it.
    """
    test = len(stream) - round(len(stream) * test_share)
    validation = test - round(len(stream) * validation_share)
    tokens = torch.from_numpy(stream)
    parts: dict[Split, torch.Tensor] = {
        "train": tokens[:validation],
        "validation": tokens[validation:test],
        "test": tokens[test:],
    }
    shortest = min(len(part) for part in parts.values())
    if shortest <= length:
        raise too_short(parts, length, shortest)
    return {name: WindowDataset(part, length) for name, part in parts.items()}


def too_short(parts: dict[Split, torch.Tensor], length: int, shortest: int) -> ConfigError:
    sizes = ", ".join(f"{name} {len(part):,}" for name, part in parts.items())
    fix = f"try data.length={shortest - 1}" if shortest > 1 else "give a longer text"
    return refuse(f"data.length={length}", f"a window needs {length + 1:,} bytes of each split ({sizes})", fix)
