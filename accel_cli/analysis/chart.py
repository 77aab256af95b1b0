"""Line charts as SVG, and bars stacked from shares."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.wording import TIME_PARTS, is_finite, number, share

Point = tuple[float, float]

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 68, 16, 12, 44
LOG_SPAN = 100.0
"""A loss that spans more than two decades is drawn on a log scale."""
SMALLEST_STEP = 1e-300
"""Between ticks; below it numbers lose their digits."""
DRAWN_POINTS = 240
SMOOTHED_FROM = 120
"""From so many points on, a noisy line is drawn thin, with a running mean over it."""


@dataclass(frozen=True)
class Series:
    """One line; ``colour`` is the place of its run in the palette, ``mark`` a point to ring."""

    label: str
    points: Sequence[Point]
    colour: int = 0
    mark: Point | None = None


class Scale(NamedTuple):
    """From values to coordinates in the box."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (
            (math.log10(self.low), math.log10(self.high), math.log10(value))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def line_chart(
    series: Sequence[Series], *, title: str, x_label: str, y_label: str, log: bool = False, smooth: bool = False
) -> Html:
    """An SVG of ``series``, as wide as its place. ``log`` allows a log scale, ``smooth`` a running mean.

    Points that are not finite break the line, as does an x that goes back (a resume).
    """
    drawn = [(one, segments(one.points)) for one in series]
    finite = [point for _, parts in drawn for part in parts for point in part]
    if not finite:
        return element("p", "No records to draw.", class_="quiet")
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    as_log = log and min(ys) > 0 and max(ys) / min(ys) > LOG_SPAN
    across = Scale(*span(min(0.0, *xs), max(xs)), LEFT, WIDTH - RIGHT)
    up = Scale(*padded(min(ys), max(ys), as_log), HEIGHT - BOTTOM, TOP, as_log)

    smooth = smooth and max(len(one.points) for one in series) >= SMOOTHED_FROM
    lines, hover = [], []
    for one, parts in drawn:
        bold = [running_mean(part, max(2, len(part) // 40)) for part in parts] if smooth else parts
        if smooth:
            lines.append(_line([thin(part) for part in parts], across, up, f"line raw run-{one.colour}"))
        kept = [thin(part) for part in bold]
        lines.append(_line(kept, across, up, f"line run-{one.colour}"))
        if one.mark and is_finite(one.mark[1]) and across.low <= one.mark[0] <= across.high:
            at = {"cx": across(one.mark[0]), "cy": up(min(max(one.mark[1], up.low), up.high))}
            lines.append(element("circle", **at, r=4.5, class_=f"mark run-{one.colour}"))
        points = [
            [round(across(x), 1), round(up(y), 1), round(x, 6), float(f"{y:.5g}")] for part in kept for x, y in part
        ]
        hover.append({"label": one.label, "colour": one.colour, "points": points})
    return element(
        "svg",
        axes(across, up, x_label, y_label + (" (log)" if as_log else "")),
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {y_label} over {x_label}",
        class_="chart",
        data_x=x_label,
        data_series=json.dumps(hover, separators=(",", ":")),
    )


def stacked_bar(shares: Mapping[str, object]) -> Html:
    """One bar of the parts of a run's time; what the shares leave unsaid stays empty, what they overstate is scaled."""
    parts = {name: float(value) for name in TIME_PARTS if is_finite(value := shares.get(name)) and value > 0}  # type: ignore[arg-type, operator]
    scale = 100 / max(1.0, sum(parts.values()))
    rectangles, at = [], 0.0
    for name, value in parts.items():
        width = value * scale
        label = element("title", f"{name} {share(value)}")
        rectangles.append(element("rect", label, x=at, y=0, width=width, height=10, class_=f"part-{name}"))
        at += width
    said = ", ".join(f"{name} {share(value)}" for name, value in parts.items())
    return element(
        "svg", *rectangles, viewBox="0 0 100 10", preserveAspectRatio="none", role="img", aria_label=said, class_="bar"
    )


def segments(points: Sequence[Point]) -> list[list[Point]]:
    """The pieces that one stroke may join."""
    pieces: list[list[Point]] = [[]]
    for x, y in points:
        if not (is_finite(x) and is_finite(y)):
            pieces.append([])
            continue
        if pieces[-1] and x < pieces[-1][-1][0]:
            pieces.append([])
        pieces[-1].append((float(x), float(y)))
    return [piece for piece in pieces if piece]


def thin(points: list[Point], limit: int = DRAWN_POINTS) -> list[Point]:
    """At most about ``limit`` points: the lowest and the highest of each stretch, so that no spike is lost."""
    if len(points) <= limit:
        return points
    bounds = [round(i * len(points) / (limit // 2)) for i in range(limit // 2 + 1)]
    kept = {0, len(points) - 1}
    for start, stop in pairwise(bounds):
        stretch = range(start, stop)
        kept |= {min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def running_mean(points: list[Point], reach: int) -> list[Point]:
    """Each point's mean with its ``reach`` neighbours on both sides.

    Near the start, where a loss falls steeply, equally few on both; near the end, those that there are.
    """
    total = [0.0]
    for _, y in points:
        total.append(total[-1] + y)
    smooth = []
    for i, (x, _) in enumerate(points):
        start, stop = i - min(reach, i), min(i + min(reach, i), len(points) - 1) + 1
        smooth.append((x, (total[stop] - total[start]) / (stop - start)))
    return smooth


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``count`` of them."""
    rough = (high - low) / count
    if rough < SMALLEST_STEP:
        return [low]
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, thinned where there are more than six; 1, 2 and 5 of each where there are fewer than three."""
    if high / low < 100:
        return few_log_ticks(low, high)
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, math.ceil((last - first + 1) / 6))
    return [10.0**power for power in range(first, last + 1, step)]


def few_log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten; round numbers where even those are too few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kept = [float(f"{m}e{power}") for power in powers for m in (1, 2, 5) if low <= float(f"{m}e{power}") <= high]
    return kept if len(kept) > 2 else ticks(low, high, 4)


def axes(across: Scale, up: Scale, x_label: str, y_label: str) -> Html:
    """Grid, ticks and labels of a chart between two scales."""
    floor, marks = HEIGHT - BOTTOM, []
    for value in log_ticks(up.low, up.high) if up.log else ticks(up.low, up.high):
        y = up(value)
        marks.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
        marks.append(element("text", _tick(value), x=LEFT - 8, y=y, class_="tick y"))
    for value in log_ticks(across.low, across.high) if across.log else ticks(across.low, across.high):
        x = across(value)
        marks.append(element("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="axis"))
        marks.append(element("text", _tick(value), x=x, y=floor + 17, class_="tick x"))
    marks.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=floor, y2=floor, class_="axis"))
    middle = (TOP + floor) / 2
    marks.append(element("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6, class_="label x"))
    marks.append(
        element("text", y_label, x=11, y=middle, transform=f"rotate(-90 11 {middle:g})", class_="label side x")
    )
    return join(*marks)


def _line(pieces: list[list[Point]], across: Scale, up: Scale, css: str) -> Html:
    def place(point: Point) -> str:
        return f"{across(point[0]):.1f},{up(point[1]):.1f}"

    strokes = "".join("M" + "L".join(map(place, piece)) for piece in pieces if len(piece) > 1)
    dots = [
        element("circle", cx=across(piece[0][0]), cy=up(piece[0][1]), r=3.0, class_=f"dot {css}")
        for piece in pieces
        if len(piece) == 1
    ]
    return join(element("path", d=strokes, class_=css) if strokes else None, *dots)


def span(low: float, high: float) -> tuple[float, float]:
    if low < high:
        return low, high
    return low - (abs(low) * 0.05 or 0.5), high + (abs(high) * 0.05 or 0.5)


def padded(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        edge = (high / low) ** 0.04
        return low / edge, high * edge
    low, high = (low, high) if low < high else span(low, high)
    edge = (high - low) * 0.05
    return (max(0.0, low - edge) if low >= 0 else low - edge), high + edge


def _tick(value: float) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:g}{unit}"
        return f"{value:.0e}".replace("e-0", "e-")
    return number(int(value)) if value == int(value) else f"{value:g}"
