"""One cycle: up to full rate, then down far below the start."""

from __future__ import annotations

import math

from accel_cli.schedule.base import Schedule, in_steps


class OneCycle(Schedule):
    """Smith and Topin 2018, arXiv:1708.07120; as torch's OneCycleLR in two phases, its momentum too.

    The last step of the run has the final rate.
    """

    def shape(self, step: int, first: int, steps: int) -> float:
        start = 1.0 / self.config.start_divisor
        rising, share = self._phase(step, first, steps)
        low = start if rising else start / self.config.final_divisor
        return low + (1.0 - low) * self._risen(rising, share)

    def height(self, step: int, steps: int) -> float:
        """Of each phase's own range, as the last rate lies far below the first; 0 during a warm-up."""
        first = in_steps(self.config.warmup, steps)
        return self._risen(*self._phase(step, first, steps)) if step >= first else 0.0

    def _phase(self, step: int, first: int, steps: int) -> tuple[bool, float]:
        """(whether the rate still rises, share of that phase that lies behind)."""
        last = steps - first - 1
        peak = max(self.config.peak_at * (steps - first) - 1.0, 0.0)
        position = step - first
        if position <= peak:
            return True, position / peak if peak else 1.0
        return False, min((position - peak) / (last - peak), 1.0) if last > peak else 1.0

    def _risen(self, rising: bool, share: float) -> float:
        share = share if rising else 1.0 - share
        return share if self.config.anneal == "linear" else (1.0 - math.cos(math.pi * share)) / 2.0
