"""A trace of a few steps, for ui.perfetto.dev or chrome://tracing: where the time goes, call by call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from torch.profiler import ProfilerActivity, profile, schedule

from accel_cli.engine import flame

WAIT, WARMUP, STEPS = 3, 2, 5


class Timer(Protocol):
    def leave_out(self, seconds: float) -> None: ...


class Profile:
    """Traces steps 6 to 10 of an attempt into ``profile/trace.json``, then ends: the steps after cost nothing.

    At the end of the run a flame graph is drawn of it, where a tool is installed.
    """

    def __init__(
        self,
        folder: Path,
        activities: Sequence[ProfilerActivity],
        say: Callable[[str], None],
        timers: Sequence[Timer],
    ) -> None:
        """What tracing itself takes within a step is left out by ``timers``."""
        self.path = folder / "profile" / "trace.json"
        self.path.parent.mkdir(exist_ok=True)
        self.say = say
        self.timers = timers
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it prints what it does, and that there is no GPU
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=WAIT, warmup=WARMUP, active=STEPS, repeat=1),
            on_trace_ready=lambda found: found.export_chrome_trace(str(self.path)),
            with_stack=True,
        )
        self.left = WAIT + WARMUP + STEPS
        self.profiler.start()

    def after_step(self, step: int) -> None:
        if self.left == 0:
            return
        began = time.perf_counter()
        self.left -= 1
        self.profiler.step()
        if self.left == 0:
            self.profiler.stop()
        took = time.perf_counter() - began
        for timer in self.timers:
            timer.leave_out(took)

    def close(self) -> None:
        """A run shorter than the trace leaves what there is."""
        if self.left:
            self.left = 0
            self.profiler.stop()
        if not self.path.exists():
            self.say(f"no trace: the run took fewer than {WAIT + WARMUP + 1} steps")
            return
        self.say(f"trace in {self.path}: open it at ui.perfetto.dev")
        self.say(flame.draw(self.path))
