"""Intervals of ratios around 1, a row each, on a log scale that stretches with the page while its text does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from accel_cli.analysis.findings import Cell
from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.result import Interval, ratio_text

WIDEST = 20.0
"""A ratio beyond it, or below its inverse, is drawn at the edge with an arrow."""
TICKS = (
    0.05, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0,
    20.0,
)  # fmt: skip
Place = Callable[[float], float]
"""From a ratio to per cent of the width."""
TICK_SPACE = 9.0
"""Per cent of the width between two ticks at least."""


class PlotRow(NamedTuple):
    """``said`` is the verdict in words; without an interval the row says that alone."""

    name: str
    interval: Interval | None
    said: Cell
    code: bool = True


def interval_plot(rows: Sequence[PlotRow], margin: float, axis: str) -> Html:
    """``margin`` (0.01) is the band around 1 in which a difference counts as none."""
    low, high = _domain([row.interval for row in rows if row.interval], margin)

    def place(ratio: float) -> float:
        return 100 * math.log(min(max(ratio, low), high) / low) / math.log(high / low)

    drawn = [_row(row, place, margin, (low, high)) for row in rows]
    return element("div", *drawn, _axis(place, low, high), element("p", axis, class_="quiet"), class_="intervals")


def _domain(found: Sequence[Interval], margin: float) -> tuple[float, float]:
    ends = [end for one in found for end in one if math.isfinite(end) and end > 0]
    low, high = min([*ends, 1 - 3 * margin]), max([*ends, 1 + 3 * margin])
    edge = (high / low) ** 0.05
    return max(low / edge, 1 / WIDEST), min(high * edge, WIDEST)


def _row(row: PlotRow, place: Place, margin: float, domain: tuple[float, float]) -> Html:
    band, one = (place(1 - margin), place(1 + margin)), f"{place(1):.2f}%"
    wide = f"{max(band[1] - band[0], 0.4):.2f}%"
    marks: list[Html] = [
        element("rect", x=f"{band[0]:.2f}%", width=wide, y=0, height="100%", class_="margin"),
        element("line", x1=one, x2=one, y1=0, y2="100%", class_="one"),
    ]
    if row.interval:
        tone = {"good": "good", "bad": "bad", "warning": "warning"}.get(row.said.form, "plain")
        marks.append(_mark(row.interval, place, domain, tone))
    name = element("code" if row.code else "span", row.name)
    said = f"{row.name}: {ratio_text(row.interval) if row.interval else 'not measured'}, {row.said.text}"
    number = element("span", ratio_text(row.interval), class_="numbers") if row.interval else None
    badge = element("span", row.said.text, class_=f"badge {_tone(row.said)}") if row.said.text else None
    track = element("svg", *marks, role="img", aria_label=said, class_="track")
    return element(
        "div",
        element("div", name, class_="label"),
        track,
        element("div", number, badge, class_="said"),
        class_="interval",
    )


def _mark(found: Interval, place: Place, domain: tuple[float, float], tone: str) -> Html:
    low, high, middle = place(found.low), place(found.high), place(found.value)
    shapes = [
        element("line", x1=f"{low:.2f}%", x2=f"{high:.2f}%", y1="50%", y2="50%", class_="whisker"),
        *(
            element("line", x1=f"{end:.2f}%", x2=f"{end:.2f}%", y1="30%", y2="70%", class_="whisker")
            for end, value in ((low, found.low), (high, found.high))
            if domain[0] <= value <= domain[1]
        ),
        element("circle", cx=f"{middle:.2f}%", cy="50%", r=5, class_="value"),
    ]
    arrows = [
        element("text", sign, x=f"{end}%", y="50%", class_=f"arrow {side}")
        for sign, end, side, beyond in (
            ("‹", 0, "start", found.low < domain[0]),
            ("›", 100, "end", found.high > domain[1]),
        )
        if beyond
    ]
    return element("g", *shapes, *arrows, class_=f"tone-{tone}")


def _axis(place: Place, low: float, high: float) -> Html:
    kept: list[float] = []
    for tick in sorted(TICKS, key=lambda tick: (tick != 1.0, abs(math.log(tick)) < 0.09, abs(math.log(tick)))):
        if low <= tick <= high and all(abs(place(tick) - place(other)) >= TICK_SPACE for other in kept):
            kept.append(tick)
    texts = [element("text", f"{tick:g}", x=f"{place(tick):.2f}%", y=13) for tick in sorted(kept)]
    return element(
        "div", element("div", "", class_="label"), element("svg", join(*texts), class_="track ticks"), class_="interval"
    )


def _tone(cell: Cell) -> str:
    return cell.form if cell.form in ("good", "bad", "warning") else "plain"
