"""What a person sees of a sweep: points that run, how each ended, and the table at the end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from accel_cli.analysis.point import ENDED
from accel_cli.analysis.search import Row, objective, ranked
from accel_cli.analysis.wording import NOTHING, duration, number
from accel_cli.cli.table import columns

STYLES = {"completed": "green", "target_reached": "green", "stopped_early": "green", "pruned": "dim",
          "interrupted": "yellow", "running": "yellow", "waiting": "dim"}  # fmt: skip
LONGEST_CAUSE = 100


class Silent:
    """Nothing at all, for --json."""

    def __init__(self, rows: Sequence[Row], count: int) -> None:
        self.rows, self.count = rows, count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begins(self, row: Row) -> None:
        pass

    def event(self, row: Row, event: str, values: dict[str, Any]) -> None:
        pass

    def ended(self, row: Row) -> None:
        pass

    def best(self) -> str:
        """The best so far, in words; "" before there is one."""
        first = ranked(list(self.rows))[:1]
        return f"best {metric(first[0])} at {_point(first[0])}" if first and objective(first[0]) is not None else ""


class Lines(Silent):
    """A line as a point begins, and one as it ends."""

    def begins(self, row: Row) -> None:
        self.say(f"{self.place(row)}  begins")

    def ended(self, row: Row) -> None:
        best = self.best()
        self.say(f"{self.place(row)}  {ending(row)}" + (f"   ({best})" if best else ""))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def place(self, row: Row) -> str:
        return f"{row['number'] + 1} of {self.count}  {_point(row)}"


class Live(Lines):
    """A bar of all points and one of each that runs; how one ended is printed above them."""

    def __init__(self, rows: Sequence[Row], count: int) -> None:
        super().__init__(rows, count)
        self.bars: dict[int, TaskID] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self.all = self.progress.add_task("points", total=count, completed=self._done(), text="")

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def begins(self, row: Row) -> None:
        self.bars[row["number"]] = self.progress.add_task(_point(row), total=1, completed=0, text="starting")

    def event(self, row: Row, event: str, values: dict[str, Any]) -> None:
        if (bar := self.bars.get(row["number"])) is None:
            return
        if event in ("start", "train"):
            loss = f"loss {number(values['loss'])}" if event == "train" else ""
            self.progress.update(bar, total=values["steps"], completed=values["step"], text=loss)
        elif event == "progress":
            self.progress.update(bar, total=values["total"], completed=values["done"], text=values["what"])

    def ended(self, row: Row) -> None:
        if (bar := self.bars.pop(row["number"], None)) is not None:
            self.progress.remove_task(bar)
        super().ended(row)
        self.progress.update(self.all, completed=self._done(), total=max(self.count, len(self.rows)), text=self.best())

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, soft_wrap=True)

    def _done(self) -> int:
        return sum(row["status"] in ENDED for row in self.rows)


def sweep_view(rows: Sequence[Row], count: int, *, json: bool) -> Silent:
    """The view that fits where standard error goes; ``rows`` grow while a search goes on, to ``count`` at most."""
    if json:
        return Silent(rows, count)
    return Live(rows, count) if sys.stderr.isatty() else Lines(rows, count)


def ending(row: Row) -> str:
    """How a point ended, in a few words."""
    parts = [row["status"].replace("_", " "), metric(row), row["cause"] or ""]
    if row["train_seconds"]:
        parts.insert(2, f"{duration(row['train_seconds'])} of training")
    return "   ".join(part for part in parts if part and part != NOTHING)


def metric(row: Row) -> str:
    value = objective(row)
    return NOTHING if value is None else f"{row['metric']['name']} {number(value)}"


def table(rows: Sequence[Row]) -> str:
    """A line a point, the best first: what differs, how it ended, its metric, its time and speed, or the cause."""
    head = ("point", "ended", "best", "training", "samples/s", "")
    order = ranked(list(rows))
    lines = [head, *(_cells(row) for row in order)]
    styles = [["dim"] * len(head), *(["bold", STYLES.get(row["status"], "red"), "", "", "", ""] for row in order)]
    return columns(lines, styles)


def _cells(row: Row) -> tuple[str, ...]:
    rate, seconds, cause = row["samples_per_second"], row["train_seconds"], row["cause"] or ""
    return (
        f"{row['number']:03d}  {_point(row)}",
        row["status"].replace("_", " "),
        metric(row),
        NOTHING if seconds is None else duration(seconds),
        NOTHING if rate is None else f"{rate:,.0f}",
        cause if len(cause) <= LONGEST_CAUSE else f"{cause[: LONGEST_CAUSE - 3]}...",
    )


def _point(row: Row) -> str:
    return " ".join(row["point"])
