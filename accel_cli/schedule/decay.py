"""Schedules that decay smoothly over the run."""

from __future__ import annotations

import math

from accel_cli.schedule.base import Schedule


def share_done(step: int, first: int, steps: int) -> float:
    """Share of the steps after the warm-up that lie behind ``step``, 0 ... 1; the end is one past the last step."""
    return min((step - first) / (steps - first), 1.0) if steps > first else 0.0


class Linear(Schedule):
    """A straight line; as torch's LinearLR."""

    def shape(self, step: int, first: int, steps: int) -> float:
        return 1.0 + (self.config.final - 1.0) * share_done(step, first, steps)


class Cosine(Schedule):
    """Half a cosine, without restarts (Loshchilov and Hutter 2017, arXiv:1608.03983); as CosineAnnealingLR."""

    def shape(self, step: int, first: int, steps: int) -> float:
        falling = (1.0 + math.cos(math.pi * share_done(step, first, steps))) / 2.0
        return self.config.final + (1.0 - self.config.final) * falling


class Exponential(Schedule):
    """The same relative decay at every step; as ExponentialLR with gamma = final ** (1 / steps)."""

    def shape(self, step: int, first: int, steps: int) -> float:
        return self.config.final ** share_done(step, first, steps)
