"""What a person sees while ranks work: a live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from accel_cli.engine.events import number, plain

PLAIN_SECONDS = 1.0
"""Least time between two plain train lines: a log is read by people."""


class Quiet:
    """Nothing at all, for --json and for Python callers."""

    def event(self, event: str, values: dict[str, Any]) -> None:
        pass

    def output(self, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class Plain:
    """A line an event, on standard error; rank 0's own output goes to standard output."""

    def __init__(self) -> None:
        self.last = 0.0
        self.progress = ""

    def event(self, event: str, values: dict[str, Any]) -> None:
        if event == "train":
            now = time.monotonic()
            if now - self.last < PLAIN_SECONDS and values["step"] != values["steps"]:
                return
            self.last = now
        if event == "progress":
            now = time.monotonic()
            if values["done"] == values["total"] or now - self.last > 5 * PLAIN_SECONDS:
                self.last = now
                self._print(f"{values['what']}: {values['done']:,} of {values['total']:,}")
            return
        if line := plain(event, values):
            self._print(line)

    def output(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def close(self) -> None:
        pass

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class Live:
    """One line that moves: step, rate, loss, metric, time left; what stays is printed above it."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.metric = ""
        self.progress: Progress | None = None
        self.task: Any = None
        self.what = ""
        self.status = self.console.status("starting")

    def event(self, event: str, values: dict[str, Any]) -> None:
        if event == "starting":
            self.status.start()
        elif event == "start":
            self._begin("training", values["steps"], values["step"])
        elif event == "progress":
            if values["what"] != self.what:
                self._begin(values["what"], values["total"], 0)
            self._update(values["done"], values["total"], "")
        elif event == "train":
            rate = values["samples_per_second"]
            speed = f"{rate:,.0f} samples/s" if rate else ""
            self._update(values["step"], values["steps"], f"loss {number(values['loss'])}  {self.metric}{speed}")
        elif event == "evaluation":
            shown = {k: v for k, v in values["metrics"].items() if not k.endswith("_loss")} or values["metrics"]
            self.metric = "".join(f"{name} {number(value)}  " for name, value in list(shown.items())[:1])
        elif line := plain(event, values):
            self._print(line)

    def output(self, text: str) -> None:
        self._print(text.rstrip("\n"))

    def close(self) -> None:
        self.status.stop()
        if self.progress is not None:
            self.progress.stop()
            self.progress = None

    def _begin(self, what: str, total: int, done: int) -> None:
        self.close()
        self.what = what
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )
        self.task = self.progress.add_task(what, total=total, completed=done, text="")
        self.progress.start()

    def _update(self, done: int, total: int, text: str) -> None:
        if self.progress is not None:
            self.progress.update(self.task, completed=done, total=total, text=text)

    def _print(self, text: str) -> None:
        console = self.progress.console if self.progress is not None else self.console
        console.print(text, markup=False, soft_wrap=True)


def view(json: bool = False) -> Quiet | Plain | Live:
    """The view that fits where standard error goes."""
    if json:
        return Quiet()
    return Live() if sys.stderr.isatty() else Plain()
