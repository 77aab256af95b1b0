"""A tracker that fails never harms the run: it warns once and is quiet from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accel_cli.config.schema.base import Option
from accel_cli.tracking.base import Tracker
from accel_cli.tracking.records import headline

logger = logging.getLogger(__name__)


class Guarded(Tracker):
    """What a sink is: ``start`` once, ``write`` a record, ``end`` with the summary's headline numbers.

    A full disk, a folder taken away, a server that does not answer: any exception is a warning, the first time.
    """

    def __init__(self, config: Option, folder: Path) -> None:
        self.name = config.option
        self.folder = folder
        self.step = 0
        """Of the last record."""
        self._working = True
        self._guard(lambda: self.start(config))

    def start(self, config: Any) -> None:
        """Open the sink in ``self.folder``, and tell it the run's settings."""

    def write(self, record: dict[str, Any]) -> None:
        """Take one record; ``record["step"]`` says where it stands."""

    def end(self, numbers: dict[str, float]) -> None:
        """Take the headline numbers (none where the run did not end), write out what is held back, and close."""

    def log(self, record: dict[str, Any]) -> None:
        self._guard(lambda: self._take(record))

    def close(self) -> None:
        self._guard(lambda: self.end(headline(self.folder)))
        self._working = False

    def _take(self, record: dict[str, Any]) -> None:
        self.step = record["step"]
        self.write(record)

    def _guard(self, action: Callable[[], None]) -> None:
        # Any exception: what a file system, a library or its own thread may raise is not ours to list.
        if not self._working:
            return
        try:
            action()
        except Exception as error:
            logger.warning("tracking=%s stopped, training goes on: %s: %s", self.name, type(error).__name__, error)
            self._working = False
