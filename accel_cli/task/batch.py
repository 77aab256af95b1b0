"""Reading a batch: its inputs, its targets, how many samples it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from accel_cli.errors import ConfigError, Problem

TARGET_NAMES = ("labels", "label", "targets", "target", "y")


def split(batch: Any) -> tuple[Any, Tensor]:
    """(inputs, targets) of a pair, or of a dict, whose other entries are the model's keyword arguments.

    Raises ConfigError for any other form of batch.
    """
    if type(batch) is tuple and len(batch) == 2:  # the usual form: asking for a Mapping takes longer than all else here
        return batch
    if isinstance(batch, Mapping):
        for name in TARGET_NAMES:
            if name in batch:
                return {key: value for key, value in batch.items() if key != name}, batch[name]
        why = f"a batch has the entries {', '.join(map(str, batch))}: no targets"
        raise ConfigError(Problem("task", why, f"name the targets one of {', '.join(TARGET_NAMES)}"))
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        return batch[0], batch[1]
    size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
    why = f"a batch is a {type(batch).__name__}{size}, neither (inputs, targets) nor a dict"
    raise ConfigError(Problem("task", why, "try task=custom task.factory=my_file:MyTask"))


def samples(batch: Any) -> int:
    """The leading dimension of the first tensor found. Raises ConfigError if there is none."""
    if type(batch) is tuple and batch and type(batch[0]) is Tensor and batch[0].dim():
        return batch[0].shape[0]
    found = _first_tensor(batch)
    if found is None or found.dim() == 0:
        raise ConfigError(Problem("task", "a batch holds no tensor to count samples by", "let the collate make one"))
    return found.shape[0]


def _first_tensor(batch: Any) -> Tensor | None:
    if isinstance(batch, Tensor):
        return batch
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ()
    return next((found for value in values if (found := _first_tensor(value)) is not None), None)
