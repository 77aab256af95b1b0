"""Serve batches from memory: a gather for each, whatever the samples cost to read once."""

from __future__ import annotations

from typing import Any

from accel_cli.loader.base import Loader
from accel_cli.loader.read import Collate, Reader


class Memory(Loader):
    """Array data sets are gathered as they are, memory-mapped ones from their pages; others are read once, stacked."""

    why = "in memory"

    def __init__(self, config: Any, *, dataset: Any, collate: Collate | None, seed: int, **rest: Any) -> None:
        super().__init__(config, dataset=dataset, collate=collate, seed=seed, **rest)
        if self.stream is None and not self.reader.is_array:
            held = self.sharing.stacked(dataset, collate=collate, seed=seed, option="memory")
            self.reader = Reader(held, collate=None, seed=seed)
