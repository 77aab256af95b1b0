"""A trace of a few steps, for chrome://tracing or ui.perfetto.dev: where the time goes, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule

WAIT, WARMUP, STEPS = 3, 2, 5


class Profile:
    """Traces steps 6 to 10 of an attempt into ``profile/trace.json``, then ends: the steps after cost nothing."""

    def __init__(self, folder: Path, activities: Sequence[ProfilerActivity]) -> None:
        self.path = folder / "profile" / "trace.json"
        self.path.parent.mkdir(exist_ok=True)
        self.profiler = profile(
            activities=activities,
            schedule=schedule(wait=WAIT, warmup=WARMUP, active=STEPS, repeat=1),
            on_trace_ready=lambda found: found.export_chrome_trace(str(self.path)),
        )
        self.left = WAIT + WARMUP + STEPS
        self.profiler.start()

    def after_step(self, step: int) -> None:
        if self.left == 0:
            return
        self.left -= 1
        self.profiler.step()
        if self.left == 0:
            self.profiler.stop()

    def close(self) -> None:
        """A run shorter than the trace leaves what there is."""
        if self.left:
            self.left = 0
            self.profiler.stop()
