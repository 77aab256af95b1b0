"""The metric over each numeric axis of a sweep, a line for each combination of the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from accel_cli.analysis.markup import Html, element
from accel_cli.analysis.pareto import Mode
from accel_cli.analysis.result import Interval, spread
from accel_cli.analysis.scatter import Dot, legend, scatter
from accel_cli.analysis.wording import plain_name

MOST_LINES = 8
"""More combinations than the palette has colours are drawn as one line through the best of each value."""
SEED = "train.seed"


class Placed(NamedTuple):
    """A measured point: its settings by key, its metric, and what it is called."""

    settings: dict[str, str]
    metric: float
    words: str


def over_axes(axes: Sequence[str], points: Sequence[Placed], metric: str, mode: Mode) -> list[Html]:
    """A figure for every axis on which at least two numbers were measured; seeds are repeats, no axis."""
    numeric = [axis for axis in axes if axis != SEED and len(_values(axis, points)) > 1]
    return [_figure(axis, points, metric, mode) for axis in numeric]


def _values(axis: str, points: Sequence[Placed]) -> set[float]:
    read = [_number(point.settings[axis]) for point in points if axis in point.settings]
    return set() if None in read else {value for value in read if value is not None}


def _figure(axis: str, points: Sequence[Placed], metric: str, mode: Mode) -> Html:
    lines: dict[str, dict[float, list[Placed]]] = {}
    for point in points:
        at = _number(point.settings.get(axis, ""))
        if at is not None:
            others = " ".join(f"{key}={value}" for key, value in point.settings.items() if key not in (axis, SEED))
            lines.setdefault(others, {}).setdefault(at, []).append(point)
    crowded = len(lines) > MOST_LINES
    dots, strokes = [], []
    for colour, line in enumerate(lines.values()):
        colour = 0 if crowded else colour
        stroke = []
        for at, some in sorted(line.items()):
            up = spread([point.metric for point in some])
            assert up is not None  # the metrics of measured points are finite
            dots.append(Dot("", some[0].words, Interval(at, at, at), up, colour, filled=not crowded))
            stroke.append((at, up.value))
        if not crowded:
            strokes.append((colour, stroke))
    if crowded:
        choose = max if mode == "max" else min
        by_value = {dot.across.value for dot in dots}
        strokes = [(0, [(at, choose(d.up.value for d in dots if d.across.value == at)) for at in sorted(by_value)])]
    title = f"{plain_name(metric).capitalize()} over {axis}"
    chart = scatter(dots, strokes, title=title, x_label=axis, y_label=plain_name(metric))
    keys = legend([(colour, name) for colour, name in enumerate(lines)]) if 1 < len(lines) <= MOST_LINES else None
    hint = element("p", "The line joins the best of each value.", class_="quiet") if crowded else None
    return element("figure", element("figcaption", title), chart, keys, hint)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
