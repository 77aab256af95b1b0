"""A course of learning rate and momentum, drawn in a terminal's characters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from accel_cli.analysis.chart import ticks
from accel_cli.cli.schedule_course import Course
from accel_cli.cli.table import paint

ROWS, MOMENTUM_ROWS = 16, 6
LEAST_COLUMNS = 20
TICK_COLUMNS = 14
"""Columns for each tick of the horizontal axis, about."""


class Glyphs(NamedTuple):
    levels: str
    """From an empty cell to a full one."""
    side: str
    tick: str
    corner: str
    floor: str
    floor_tick: str
    warm: str


UNICODE = Glyphs(" ▁▂▃▄▅▆▇█", "│", "┤", "└", "─", "┬", "━")
ASCII = Glyphs(" .:#", "|", "+", "+", "-", "+", "=")


class Panel(NamedTuple):
    """One quantity over the steps; ``low`` is the floor, ``high`` the top."""

    value: Callable[[int], float | None]
    low: float
    high: float
    rows: int
    label_every: int

    def label(self, row: int) -> str:
        """Beside the upper edge of a row, counted from the top; the floor is row ``rows``."""
        if row % self.label_every and row < self.rows:
            return ""
        return f"{self.high + (self.low - self.high) * row / self.rows:.4g}"

    @property
    def margin(self) -> int:
        return max(len(self.label(row)) for row in range(self.rows + 1))

    def height(self, step: int) -> float:
        """0 ... 1."""
        value = self.value(step) or 0.0
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0) if self.high > self.low else 1.0


def text(course: Course, width: int) -> str:
    """The whole drawing, ``width`` characters wide, with what one must know of it."""
    drawn = glyphs()
    peak = max(course.learning_rate(step) for step in course.sampled())
    panels = [Panel(course.learning_rate, 0.0, peak, ROWS, 4)]
    if course.run.schedule.momentum is not None:
        low, high = course.run.schedule.momentum
        panels.append(Panel(course.momentum, low, high, MOMENTUM_ROWS, MOMENTUM_ROWS))
    margin = max(panel.margin for panel in panels)
    columns = max(width - margin - 2, LEAST_COLUMNS)
    steps = [min(int((column + 0.5) * course.steps / columns), course.steps - 1) for column in range(columns)]
    warm = sum(step < course.warmup for step in steps)

    lines: list[str] = []
    for panel, name in zip(panels, ("learning rate", "momentum"), strict=False):
        lines += ["", paint(name, "bold")] if lines else [paint(_title(course), "bold")]
        lines += _area([panel.height(step) for step in steps], panel, margin, warm, drawn)
        lines.append(f"{panel.label(panel.rows):>{margin}} {_floor(course, columns, warm, drawn)}")
    lines.append(" " * (margin + 1) + _tick_labels(course, columns))
    return "\n".join([*lines, "", *_facts(course, drawn)])


def glyphs() -> Glyphs:
    """What standard output can show."""
    try:
        "".join(UNICODE).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def _title(course: Course) -> str:
    length = f"{course.steps:,} steps" if course.is_known else "the share of the run"
    return f"learning rate, schedule={course.run.schedule.option}, over {length}"


def _area(heights: list[float], panel: Panel, margin: int, warm: int, drawn: Glyphs) -> Iterator[str]:
    """A filled area, row by row from the top; the columns of the warm-up in another colour."""
    full = len(drawn.levels) - 1
    # Rounded up, so that no rate above zero looks like none.
    levels = [-int(-height * panel.rows * full // 1) for height in heights]
    for row in range(panel.rows):
        below = (panel.rows - 1 - row) * full
        cells = "".join(drawn.levels[min(max(level - below, 0), full)] for level in levels)
        label = panel.label(row)
        side = drawn.tick if label else drawn.side
        filled = paint(cells[:warm], "yellow") + paint(cells[warm:], "cyan")
        yield f"{label:>{margin}} {side}{filled}".rstrip()


def _ticks(course: Course, columns: int) -> dict[int, str]:
    """Column -> what stands under it."""
    count = max(columns // TICK_COLUMNS, 1)
    if not course.is_known:
        return {min(int(value / 100 * columns), columns - 1): f"{value:g}%" for value in ticks(0, 100, count)}
    places = [value for value in ticks(0, course.steps, count) if value == int(value)]
    return {min(int(value / course.steps * columns), columns - 1): f"{int(value):,}" for value in places}


def _floor(course: Course, columns: int, warm: int, drawn: Glyphs) -> str:
    marks = _ticks(course, columns)
    cells = [drawn.floor_tick if c in marks else drawn.warm if c < warm else drawn.floor for c in range(columns)]
    return drawn.corner + "".join(cells)


def _tick_labels(course: Course, columns: int) -> str:
    line = ""
    for column, label in _ticks(course, columns).items():
        begin = min(column + 1 - len(label) // 2, columns + 1 - len(label))
        if begin >= len(line):
            line = f"{line:<{max(begin, 0)}}{label} "
    return line.rstrip()


def _facts(course: Course, drawn: Glyphs) -> Iterator[str]:
    steps = course.sampled()
    highest = max(steps, key=course.learning_rate)
    said = {"first": 0, "highest": highest, "last": course.steps - 1}
    yield "   ".join(f"{name} {course.learning_rate(step):.4g} ({course.at(step)})" for name, step in said.items())
    if course.warmup:
        length = f"{course.warmup:,} steps" if course.is_known else f"{100 * course.warmup / course.steps:.3g}%"
        yield f"warm-up: {length} ({drawn.warm})"
    yield from course.notes()
