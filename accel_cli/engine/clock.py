"""Where the time of a step goes: one mark after each phase."""

from __future__ import annotations

import time

PHASES = ("data", "forward", "backward", "optimizer", "communication", "evaluation", "checkpoint", "other")


class Clock:
    """Adds the time since the last mark to a phase; two reads of a counter and one addition.

    On a GPU a mark times the launching of work, not the work: waiting shows in the phase that waits.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.last = time.perf_counter()

    def mark(self, phase: str) -> float:
        now = time.perf_counter()
        passed = now - self.last
        self.seconds[phase] += passed
        self.last = now
        return passed

    def shares(self) -> dict[str, float]:
        """Each phase's part of all the time marked; they add up to 1."""
        total = sum(self.seconds.values())
        return {phase: round(seconds / total, 4) if total else 0.0 for phase, seconds in self.seconds.items()}
