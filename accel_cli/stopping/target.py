"""Stop as soon as a validation metric is good enough."""

from __future__ import annotations

from accel_cli.stopping.base import Watching


class Target(Watching):
    """Ends the run at the first evaluation that reaches the target."""

    def observe(self, step: int, metrics: dict[str, float]) -> str | None:
        value = self.read(metrics)
        reached = value == self.config.target or self.better(value, self.config.target)
        return "target_reached" if reached else None
