"""Stop when a validation metric has not improved for a while."""

from __future__ import annotations

from typing import Any

from accel_cli.stopping.base import Mode, Watching


class Early(Watching):
    """Ends the run at the ``patience``-th evaluation in a row without improvement (Prechelt 1998)."""

    def __init__(self, config: Any, metric: str, mode: Mode) -> None:
        super().__init__(config, metric, mode)
        self.best: float | None = None
        self.waited = 0

    def observe(self, step: int, metrics: dict[str, float]) -> str | None:
        value = self.read(metrics)
        first = self.best is None and value == value
        if first or (self.best is not None and self.better(value, self.best, by=self.config.min_delta)):
            self.best, self.waited = value, 0
            return None
        self.waited += 1
        return "stopped_early" if self.waited >= self.config.patience else None

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
