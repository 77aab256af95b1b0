"""Where the time of a step goes: one mark after each phase."""

from __future__ import annotations

import time
from collections.abc import Callable

PHASES = (
    "data", "copy", "forward", "backward", "optimizer", "communication", "evaluation", "checkpoint", "other",
)  # fmt: skip
DEVICE = ("copy", "forward", "backward", "optimizer")
"""What a device does of a step."""
STEP = ("data", *DEVICE, "other")
FIRST, COUNT = 5, 3
"""Of an attempt's steps these are watched on a device that works by itself; those before may still build buffers."""


class Clock:
    """Adds the time since the last mark to a phase; two reads of a counter and two additions.

    On a device that works by itself a mark times the launching of work, not the work: there, at a few watched steps,
    every mark waits for the device, and the time of all steps is laid out as theirs was.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.marks = dict.fromkeys(PHASES, 0)
        """How often each phase has ended."""
        self.last = time.perf_counter()
        self._watched = range(0)
        self._synchronize: Callable[[], object] = time.perf_counter
        self._wait: Callable[[], object] | None = None
        self._before: dict[str, float] = {}
        self._seen: dict[str, float] = {}

    def mark(self, phase: str) -> float:
        if self._wait is not None:
            self._wait()
        now = time.perf_counter()
        passed = now - self.last
        self.seconds[phase] += passed
        self.marks[phase] += 1
        self.last = now
        return passed

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last mark belongs to no phase."""
        self.last += seconds

    def watch(self, step: int, synchronize: Callable[[], object]) -> None:
        """Let marks wait, by ``synchronize``, at a few steps soon after ``step``, the next one."""
        self._watched, self._synchronize = range(step + FIRST, step + FIRST + COUNT), synchronize

    def begin(self, step: int) -> None:
        """Before every step."""
        if step == self._watched.start:
            self._wait = self._synchronize
            self.mark("other")
            self._before = dict(self.seconds)
        elif step == self._watched.stop and self._wait is not None:
            self._wait, self._watched = None, range(0)
            self._seen = {phase: (self.seconds[phase] - self._before[phase]) / COUNT for phase in STEP}

    def lay_out(self) -> None:
        """Give every phase of a step its part as it was at the watched ones; without any, nothing changes.

        What the device takes is the least that a step takes; only what remains of it is spent in waiting for data,
        which the host reads while the device works.
        """
        steps = self.marks["optimizer"]
        if not self._seen or not steps:
            return
        step = sum(self.seconds[phase] for phase in STEP) / steps
        busy = sum(self._seen[phase] for phase in DEVICE)
        scale = min(1.0, step / busy) if busy else 0.0
        found = {phase: self._seen[phase] * scale for phase in DEVICE}
        left = max(0.0, step - sum(found.values()))
        found["data"] = min(self._seen["data"], left)
        found["other"] = left - found["data"]
        self.seconds.update({phase: seconds * steps for phase, seconds in found.items()})

    def shares(self) -> dict[str, float]:
        """Each phase's part of all the time marked; they add up to 1."""
        total = sum(self.seconds.values())
        return {phase: round(seconds / total, 4) if total else 0.0 for phase, seconds in self.seconds.items()}
