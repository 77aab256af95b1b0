"""Records as TensorBoard scalars, in the run folder's ``tensorboard/``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from accel_cli.config.schema.tracking import TensorBoard as Config
from accel_cli.tracking.base import Tracker

logger = logging.getLogger(__name__)

AXES = {"kind", "step", "epoch", "samples", "seconds"}
"""Keys that say where a record stands rather than what was measured."""
SPLITS = ("train", "validation", "test")


class TensorBoard(Tracker):
    """``train/loss``, ``validation/accuracy``, ... over steps.

    A sink that fails (a full disk, a folder taken away) warns once and is quiet from then on.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        self._writer: SummaryWriter | None = None
        self._flush_seconds = config.flush_seconds
        self._folder = folder / "tensorboard"
        self._guarded(self._open)

    def log(self, record: dict[str, Any]) -> None:
        self._guarded(lambda: self._write(record))

    def close(self) -> None:
        self._guarded(self._close)

    def _open(self) -> None:
        self._writer = SummaryWriter(str(self._folder), flush_secs=max(1, round(self._flush_seconds)))

    def _write(self, record: dict[str, Any]) -> None:
        if self._writer is not None:
            for name, value in scalars(record):
                self._writer.add_scalar(name, value, global_step=record["step"])

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _guarded(self, action: Callable[[], None]) -> None:
        # Any exception: what a file system or the writer's own thread may raise is not ours to list.
        try:
            action()
        except Exception as error:
            logger.warning("tracking=tensorboard stopped, training goes on: %s: %s", type(error).__name__, error)
            self._writer = None


def scalars(record: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of a record's numbers; the split that a name starts with becomes its folder."""
    default = "train" if record.get("kind") == "train" else "validation"
    for key, value in record.items():
        if key in AXES or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        split, _, name = key.partition("_")
        yield (f"{split}/{name}" if name and split in SPLITS else f"{default}/{key}"), value
