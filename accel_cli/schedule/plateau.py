"""The rate drops when the validation metric stops improving: the one schedule with a state."""

from __future__ import annotations

from typing import Any, Literal

from accel_cli.schedule.base import Schedule


class Plateau(Schedule):
    """As torch's ReduceLROnPlateau with an absolute threshold and no cool-down; NaN is no improvement."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.factor = 1.0
        self.best: float | None = None
        self.waited = 0

    def shape(self, step: int, first: int, steps: int) -> float:
        return self.factor

    def observe(self, value: float, mode: Literal["min", "max"]) -> None:
        sign = 1.0 if mode == "max" else -1.0
        if value == value and (self.best is None or sign * value > sign * self.best + self.config.min_delta):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.factor = max(self.factor * self.config.factor, self.config.min_factor)
            self.waited = 0

    def state(self) -> dict[str, Any]:
        return {"factor": self.factor, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        self.factor, self.best, self.waited = state["factor"], state["best"], state["waited"]
