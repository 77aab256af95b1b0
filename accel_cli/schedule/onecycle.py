"""One cycle: up to full rate, then down far below the start."""

from __future__ import annotations

import math

from accel_cli.schedule.base import Schedule


class OneCycle(Schedule):
    """Smith and Topin 2018, arXiv:1708.07120; as torch's OneCycleLR in two phases, momentum left alone.

    The last step of the run has the final rate.
    """

    def shape(self, step: int, first: int, steps: int) -> float:
        start = 1.0 / self.config.start_divisor
        final = start / self.config.final_divisor
        last = steps - first - 1
        peak = max(self.config.peak_at * (steps - first) - 1.0, 0.0)
        position = step - first
        if position <= peak:
            return self._between(start, 1.0, position / peak) if peak else 1.0
        return self._between(1.0, final, min((position - peak) / (last - peak), 1.0) if last > peak else 1.0)

    def _between(self, begin: float, end: float, share: float) -> float:
        if self.config.anneal == "linear":
            return begin + (end - begin) * share
        return end + (begin - end) * (1.0 + math.cos(math.pi * share)) / 2.0
