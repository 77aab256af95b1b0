"""Full rate for most of the run, then a short decay."""

from __future__ import annotations

import math
from collections.abc import Callable

from accel_cli.schedule.base import Schedule, in_steps
from accel_cli.schedule.decay import share_done

FORMS: dict[str, Callable[[float], float]] = {
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: (1.0 + math.cos(math.pi * share)) / 2.0,
    "1-sqrt": lambda share: 1.0 - math.sqrt(share),
}
"""From 1 to 0 over the share of the decay that lies behind."""


class WarmupStableDecay(Schedule):
    """Hu et al. 2024 (MiniCPM), arXiv:2404.06395; the forms of decay as in Hägele et al. 2024, arXiv:2405.18392.

    Two runs of different length are the same up to the shorter one's decay, if warm-up and decay count steps.
    """

    def shape(self, step: int, first: int, steps: int) -> float:
        begin = max(steps - max(in_steps(self.config.decay, steps), 1), first)
        left = FORMS[self.config.anneal](share_done(max(step, begin), begin, steps))
        return float(self.config.final + (1.0 - self.config.final) * left)
