"""Time against metric: which runs no other beats in both, with the noise that repeats show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from accel_cli.analysis.chart import Point
from accel_cli.analysis.markup import Html, element
from accel_cli.analysis.result import Interval, spread
from accel_cli.analysis.scatter import Dot, scatter
from accel_cli.analysis.wording import plain_name

Mode = Literal["min", "max"]
LONGEST_NAME = 22
"""Letters that a picture has room for."""


class Standing(NamedTuple):
    """One contender; ``name`` is short enough to stand in the picture."""

    name: str
    words: str
    time: Interval
    metric: Interval


class Measured(NamedTuple):
    """One run: ``key`` is what it shares with its repeats."""

    key: str
    name: str
    words: str
    seconds: float
    metric: float


def grouped(runs: Sequence[Measured]) -> list[Standing]:
    """Repeats of one another become one contender: its mean, from lowest to highest."""
    groups: dict[str, list[Measured]] = {}
    for run in runs:
        groups.setdefault(run.key, []).append(run)
    found = []
    for rows in groups.values():
        time, metric = spread([row.seconds for row in rows]), spread([row.metric for row in rows])
        if time and metric:
            found.append(Standing(rows[0].name, rows[0].words, time, metric))
    return found


def front(contenders: Sequence[Standing], mode: Mode) -> list[Standing]:
    """Those that no other beats in both, quickest first; judged by the values, not by their intervals."""
    kept: list[Standing] = []
    for one in sorted(contenders, key=lambda one: (one.time.value, _badness(one, mode))):
        if not kept or _badness(one, mode) < _badness(kept[-1], mode):
            kept.append(one)
    return kept


def picture(contenders: Sequence[Standing], *, metric: str, mode: Mode, time: str, noise: str) -> list[Html]:
    """A figure, or none where fewer than two contenders can be compared; ``noise`` says what the bars are."""
    if len(contenders) < 2:
        return []
    contenders, key = _short(contenders)
    best = front(contenders, mode)
    dots = [Dot(one.name, one.words, one.time, one.metric, 0, one in best) for one in contenders]
    title = f"{plain_name(metric).capitalize()} against time"
    drawn = scatter(dots, [(-1, steps(best))], title=title, x_label=time, y_label=plain_name(metric))
    towards = "left and up" if mode == "max" else "left and down"
    hint = f"Better is {towards}. Filled: nothing here is both quicker and better. {noise}"
    return [
        element("figure", element("figcaption", title), drawn, key, element("p", hint, class_="quiet"), class_="wide")
    ]


def _short(contenders: Sequence[Standing]) -> tuple[list[Standing], Html | None]:
    """Names that would not fit become letters, and a list says what they stand for."""
    if all(len(one.name) <= LONGEST_NAME for one in contenders):
        return list(contenders), None
    letters = [_letter(place) for place in range(len(contenders))]
    entries = [
        element("li", element("b", letter), f" {one.name}") for letter, one in zip(letters, contenders, strict=True)
    ]
    renamed = [one._replace(name=letter) for letter, one in zip(letters, contenders, strict=True)]
    return renamed, element("ul", *entries, class_="legend")


def _letter(place: int) -> str:
    return (_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def steps(best: Sequence[Standing]) -> list[Point]:
    """The stairs through the front: until the next one, no better metric is to be had."""
    points: list[Point] = []
    for one in best:
        if points:
            points.append((one.time.value, points[-1][1]))
        points.append((one.time.value, one.metric.value))
    return points


def _badness(one: Standing, mode: Mode) -> float:
    return -one.metric.value if mode == "max" else one.metric.value
