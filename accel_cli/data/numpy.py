"""The user's own arrays in a .npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from accel_cli.data.base import Report, refuse
from accel_cli.data.cache import cache_folder, cached, fingerprint
from accel_cli.data.stored_table import StoredTable, save_table
from accel_cli.errors import ConfigError, Problem

CHANNELS = (1, 3, 4)


class Numpy(StoredTable):
    """Images or vectors, with integers as classes or floats as numbers; unpacked once into the cache.

    Nothing is unpickled: an array of Python objects could run code, and is refused.
    """

    def entry(self, report: Report) -> Path:
        config = self.config
        path, where = Path(config.path).expanduser(), f"data.path={config.path}"
        if not path.is_file():
            raise refuse(where, "is a folder" if path.is_dir() else "no such file", "give the path of a .npz file")
        bytes_needed = unpacked_bytes(path, where)

        def build(entry: Path) -> None:
            report("unpack arrays", 0, 1)
            inputs, targets = read_arrays(path, config, where)
            names = None
            if targets.ndim == 1:
                names = [str(number) for number in range(int(targets.max()) + 1)]
            save_table(entry, inputs=inputs, targets=targets, class_names=names)
            report("unpack arrays", 1, 1)

        return cached(
            cache_folder(config.cache),
            name="numpy",
            source={"path": str(path.resolve()), "arrays": [config.inputs, config.targets]},
            content=fingerprint(path.parent, [path.name]),
            bytes_needed=bytes_needed,
            build=build,
        )


def unpacked_bytes(path: Path, where: str) -> int:
    """What the arrays take once unpacked. Raises ConfigError where the file is not a .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise refuse(where, f"not a .npz file: {error}", "write it with numpy.savez") from error


def read_arrays(path: Path, config: Any, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, uint8 or float32, and targets: int64 [n] of classes, or float32 [n, outputs].

    Raises ConfigError for missing arrays and for all that is wrong with shapes and values.
    """
    with np.load(path, allow_pickle=False) as archive:
        missing = [
            Problem(
                f"data.{key}={name}",
                f"no such array; has {', '.join(archive.files)}",
                f"try data.{key}={_other(archive.files)}",
            )
            for key, name in (("inputs", config.inputs), ("targets", config.targets))
            if name not in archive.files
        ]
        if missing:
            raise ConfigError(missing)
        try:
            inputs, targets = archive[config.inputs], archive[config.targets]
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise refuse(where, f"cannot be read: {error}", "write plain numbers with numpy.savez") from error
    problems = [
        *(Problem(f"data.inputs={config.inputs}", why, fix) for why, fix in input_problems(inputs)),
        *(Problem(f"data.targets={config.targets}", why, fix) for why, fix in target_problems(targets, inputs)),
    ]
    if problems:
        raise ConfigError(problems)
    if inputs.ndim == 3:
        inputs = inputs[:, None]
    inputs = inputs if inputs.dtype == np.uint8 else inputs.astype(np.float32)
    if np.issubdtype(targets.dtype, np.floating):
        return inputs, targets.astype(np.float32).reshape(len(targets), -1)
    return inputs, targets.astype(np.int64)


def input_problems(inputs: np.ndarray) -> list[tuple[str, str]]:
    """Why, and what to do, of each thing that is wrong with the inputs."""
    if inputs.dtype.kind not in "biuf":
        return [(f"holds {inputs.dtype}, not numbers", "store integers or floats")]
    if inputs.ndim not in (2, 3, 4) or 0 in inputs.shape:
        shapes = "[n, features], [n, height, width] or [n, channels, height, width]"
        return [(f"has shape {list(inputs.shape)}", f"store {shapes}")]
    if inputs.ndim == 4 and inputs.shape[1] not in CHANNELS and inputs.shape[3] in CHANNELS:
        return [(f"has shape {list(inputs.shape)}, channels last", "store inputs.transpose(0, 3, 1, 2)")]
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        return [("holds nan or infinity", "replace them")]
    return []


def target_problems(targets: np.ndarray, inputs: np.ndarray) -> list[tuple[str, str]]:
    """Why, and what to do, of each thing that is wrong with the targets."""
    problems = []
    if targets.dtype.kind not in "biuf":
        return [(f"holds {targets.dtype}, not numbers", "store class numbers as integers, quantities as floats")]
    if targets.ndim == 0 or len(targets) != (len(inputs) if inputs.ndim else 0):
        problems.append(
            (f"has shape {list(targets.shape)} for inputs {list(inputs.shape)}", "store as many targets as inputs")
        )
    if targets.dtype.kind == "f":
        if targets.ndim > 2:
            problems.append((f"has shape {list(targets.shape)}", "store [n] or [n, outputs]"))
        if not np.isfinite(targets).all():
            problems.append(("holds nan or infinity", "replace them"))
        return problems
    if targets.ndim > 1:
        problems.append(
            (f"holds integers of shape {list(targets.shape)}", "store [n] class numbers, or floats to predict")
        )
    elif targets.size and targets.min() < 0:
        problems.append((f"has the class number {targets.min()}", "count classes from 0"))
    elif targets.size and targets.max() == 0:
        problems.append(("holds one class only, 0", "give samples of two classes at least"))
    return problems


def _other(names: list[str]) -> str:
    return names[-1] if names else "inputs"
