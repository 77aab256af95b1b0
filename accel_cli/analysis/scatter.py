"""Points with error bars and names, and lines between some of them, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accel_cli.analysis.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Point, Scale, axes, padded
from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.result import Interval

WIDE_SPAN = 8.0
"""An axis whose positive values span more is drawn on a log scale, where that is allowed."""
LETTER, LINE = 7.0, 13.0
"""Room that a name takes, a letter and in height."""


@dataclass(frozen=True)
class Dot:
    """``across`` and ``up`` carry the error bars; ``name`` is drawn where there is room, ``words`` at the pointer."""

    name: str
    words: str
    across: Interval
    up: Interval
    colour: int = 0
    filled: bool = True


def scatter(
    dots: Sequence[Dot],
    lines: Sequence[tuple[int, Sequence[Point]]],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log: bool = True,
) -> Html:
    """``lines``: (colour, points in the values' own units), below the dots; colour -1 is a dashed one."""
    xs = [end for dot in dots for end in _ends(dot.across)]
    ys = [end for dot in dots for end in _ends(dot.up)]
    as_log = log and min(xs) > 0 and max(xs) / min(xs) > WIDE_SPAN
    across = Scale(*_wider(*padded(min(xs), max(xs), as_log)), LEFT, WIDTH - RIGHT, as_log)
    up = Scale(*padded(min(ys), max(ys), False), HEIGHT - BOTTOM, TOP)
    strokes = [
        element(
            "path",
            d="M" + "L".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points),
            class_="front" if colour < 0 else f"line run-{colour}",
        )
        for colour, points in lines
        if len(points) > 1
    ]
    taken: list[tuple[float, float, float, float]] = [
        (across(dot.across.value) - 5, up(dot.up.value) - 5, across(dot.across.value) + 5, up(dot.up.value) + 5)
        for dot in dots
    ]
    drawn = [_dot(dot, across, up, taken) for dot in sorted(dots, key=lambda dot: not dot.filled)]
    return element(
        "svg",
        axes(across, up, x_label + (" (log)" if as_log else ""), y_label),
        *strokes,
        *drawn,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {y_label} over {x_label}",
        class_="chart",
    )


def _dot(dot: Dot, across: Scale, up: Scale, taken: list[tuple[float, float, float, float]]) -> Html:
    x, y = across(dot.across.value), up(dot.up.value)
    bars = []
    if dot.across.known and dot.across.low < dot.across.high:
        bars.append(element("line", x1=across(dot.across.low), x2=across(dot.across.high), y1=y, y2=y, class_="bars"))
    if dot.up.known and dot.up.low < dot.up.high:
        bars.append(element("line", x1=x, x2=x, y1=up(dot.up.low), y2=up(dot.up.high), class_="bars"))
    circle = element("circle", cx=x, cy=y, r=4.0, class_="dot" if dot.filled else "mark")
    return element(
        "g", element("title", dot.words), *bars, circle, _name(dot.name, x, y, taken), class_=f"run-{dot.colour}"
    )


def _name(name: str, x: float, y: float, taken: list[tuple[float, float, float, float]]) -> Html | None:
    """Beside the dot where nothing else is written; left out where all is full."""
    wide = LETTER * len(name)
    for left, top in ((x + 7, y - 14), (x - 7 - wide, y - 14), (x + 7, y + 2), (x - 7 - wide, y + 2), (x + 9, y - 6)):
        box = (left, top, left + wide, top + LINE)
        inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM
        if inside and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return element("text", name, x=left, y=top + LINE - 3, class_="point")
    return None


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _ends(found: Interval) -> tuple[float, ...]:
    return found if found.known else (found.value,)


def _wider(low: float, high: float) -> tuple[float, float]:
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def legend(entries: Sequence[tuple[int, str]]) -> Html:
    """A key for each colour."""
    rows = [element("li", join(element("i", class_=f"key run-{colour}"), text)) for colour, text in entries]
    return element("ul", *rows, class_="legend")
