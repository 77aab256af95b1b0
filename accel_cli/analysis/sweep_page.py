"""What a sweep found: every point a row, also those that failed, and the front of time against metric."""

from __future__ import annotations

import shlex
import statistics
from collections import Counter
from typing import NamedTuple

from accel_cli.analysis import pareto
from accel_cli.analysis.axis_pictures import Placed, over_axes
from accel_cli.analysis.findings import Cell, Findings, Form, Part, Table
from accel_cli.analysis.markup import Html
from accel_cli.analysis.measures import memory, numbered, seconds
from accel_cli.analysis.pareto import Measured, Mode
from accel_cli.analysis.reading import Record
from accel_cli.analysis.result import Result, count, part_of, rows_of, short, words_of
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.search import without_seed
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name

ENDED = ("completed", "target_reached", "stopped_early")
FORMS: dict[str, Form] = {
    **dict.fromkeys(ENDED, "good"),
    **dict.fromkeys(("failed", "out_of_memory", "diverged"), "bad"),
    **dict.fromkeys(("refused", "timed_out", "interrupted"), "warning"),
}
PAGE_ONLY = frozenset({"at step", "whole point", "samples/s"})
MOST_AXES = 5
"""More would push the rest out of sight: the point's words stand in one column then."""
SHOWN_RUNS = 8
"""Curves of more runs are hard to tell apart: the best ones are drawn."""


class Point(NamedTuple):
    """A point of the sweep and what its run came to; ``best`` on validation, ``value`` on test."""

    row: Record
    number: int
    words: list[str]
    status: str
    best: float | None
    seconds: float | None

    @property
    def label(self) -> str:
        return words_of(self.words) or "as it is"

    @property
    def settings(self) -> dict[str, str]:
        return dict(map(_setting, self.words))

    @property
    def repeats(self) -> str:
        """What it shares with its repeats over seeds."""
        return words_of(without_seed(self.words))


def findings(result: Result) -> Findings:
    points, (metric, mode) = points_of(result), metric_of(result)
    order = ranked(points, mode)
    measured = [point for point in points if point.best is not None and point.seconds is not None]
    contenders = pareto.grouped(
        [Measured(p.repeats, str(p.number), f"{p.number}: {p.label}", p.seconds or 0, p.best or 0) for p in measured]
    )
    repeated = len(contenders) < len(measured)
    noise = (
        "Bars: lowest to highest over seeds."
        if repeated
        else "One run a point: how much is chance is not known; add train.seed=0,1,2 to see it."
    )
    drawn = pareto.picture(contenders, metric=metric, mode=mode, time="seconds in steps", noise=noise)
    front = {int(one.name) for one in pareto.front(contenders, mode)} if len(contenders) > 1 else set()
    parts = [
        Part("Time against metric", drawn),
        Part("Metric over each axis", _over_axes(result, measured, metric, mode)),
        Part("Points", [], _table(points, list(part_of(result.data.get("axes"))), metric, order[:1], front)),
    ]
    return Findings(
        title=f"Sweep of {count(len(points), 'point')}",
        status=result.status,
        sentences=_sentences(points, order, metric, mode, front),
        remarks=[_remark(result)],
        parts=[part for part in parts if part.figures or part.table],
        commands=_commands(result, order),
        notes=result.notes,
    )


def runs(result: Result) -> list[tuple[str, RunFolder]]:
    """Of the best points, under their words."""
    points = points_of(result)
    rest = [point for point in points if point.best is None]
    found: list[tuple[str, RunFolder]] = []
    for point in [*ranked(points, metric_of(result)[1]), *rest]:
        run = result.run(point.row.get("run"))
        if run is not None and len(found) < SHOWN_RUNS:
            found.append((f"{point.number}: {point.label}", run))
    return found


def points_of(result: Result) -> list[Point]:
    found: list[Point] = []
    for place, row in enumerate(result.rows("points")):
        metric = part_of(row.get("metric"))
        best = next((metric[key] for key in ("best", "value") if is_finite(metric.get(key))), None)
        seconds = next((row[key] for key in ("train_seconds", "seconds") if is_finite(row.get(key))), None)
        words = [str(word) for word in row["point"]] if isinstance(row.get("point"), list) else []
        at = int(row["number"]) if is_finite(row.get("number")) else place
        found.append(Point(row, at, words, str(row.get("status") or "unknown"), best, seconds))
    return found


def metric_of(result: Result) -> tuple[str, Mode]:
    """What the points are compared by."""
    said = [
        part_of(result.data.get("metric")),
        *(part_of(row.get("metric")) for row in rows_of(result.data.get("points"))),
    ]
    name = next((str(one["name"]) for one in said if one.get("name")), "metric")
    return name, "min" if next((one["mode"] for one in said if one.get("mode")), "max") == "min" else "max"


class Repeated(NamedTuple):
    """Points that differ in the seed alone, and have a metric."""

    points: list[Point]

    @property
    def mean(self) -> float:
        return statistics.fmean(point.best or 0 for point in self.points)

    @property
    def seconds(self) -> float:
        return statistics.fmean(point.seconds or 0 for point in self.points)

    @property
    def label(self) -> str:
        first = self.points[0]
        return f"{first.label} (point {first.number})" if len(self.points) == 1 else first.repeats or "as it is"


def ranked(points: list[Point], mode: Mode) -> list[Point]:
    """Those with a metric, the best first; repeats over seeds stand together, and go by their mean."""
    sign = -1 if mode == "max" else 1
    groups: dict[str, list[Point]] = {}
    measured = [point for point in points if point.best is not None]
    for point in sorted(measured, key=lambda p: (sign * (p.best or 0), p.seconds or 0)):
        groups.setdefault(point.repeats, []).append(point)
    order = sorted(map(Repeated, groups.values()), key=lambda each: (sign * each.mean, each.seconds))
    return [point for each in order for point in each.points]


def _table(points: list[Point], axes: list[str], metric: str, best: list[Point], front: set[int]) -> Table:
    by_axis = 0 < len(axes) <= MOST_AXES and all(set(point.settings) <= set(axes) for point in points)
    header = [
        "", *(_titles(axes) if by_axis else ["point"]), "status", "stands", f"best {plain_name(metric)}", "on test",
        "at step", "in steps", "whole point", "samples/s", "peak memory",
    ]  # fmt: skip
    rows = []
    for point in points:
        row, found = point.row, part_of(point.row.get("metric"))
        stands = [*(["best"] if point in best else []), *(["on the front"] if point.number in front else [])]
        notes = (short(row["cause"]),) if row.get("cause") else ()
        place = [_set(point.settings.get(axis, "")) for axis in axes] if by_axis else [Cell(point.label, "code")]
        rows.append([
            Cell(str(point.number), order=point.number),
            *place,
            Cell(plain_name(point.status), FORMS.get(point.status, "badge"), notes),
            Cell(", ".join(stands), "strong"),
            numbered(point.best if is_finite(found.get("best")) else None),
            numbered(found.get("value")),
            numbered(found.get("best_step")),
            seconds(row.get("train_seconds")),
            seconds(row.get("seconds")),
            numbered(row.get("samples_per_second"), 3),
            memory(row.get("peak_memory_bytes")),
        ])  # fmt: skip
    return Table(header, rows, sortable=True, page_only=PAGE_ONLY).without_empty_columns(NOTHING)


def _titles(axes: list[str]) -> list[str]:
    """The last word of each key, where no other axis ends in it."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return [name if last.count(name) == 1 else axis for name, axis in zip(last, axes, strict=True)]


def _set(value: str) -> Cell:
    """What an axis is set to, sorted as a number where it is one."""
    try:
        return Cell(value, order=float(value))
    except ValueError:
        return Cell(value)


def _sentences(points: list[Point], order: list[Point], metric: str, mode: Mode, front: set[int]) -> list[str]:
    if not points:
        return ["No point was begun yet."]
    name = f"{'highest' if mode == 'max' else 'lowest'} {plain_name(metric)}"
    found = []
    if order:
        best = order[0]
        over = _repeated(best, order)
        took = f", after {duration(over.seconds)} of steps" if best.seconds is not None else ""
        value = number(over.mean)
        if len(over.points) > 1:
            ends = sorted(point.best or 0 for point in over.points)
            name += " on average"
            value += f", {number(ends[0])} to {number(ends[-1])} over {len(ends)} seeds"
        found.append(f"The {name} is {value}: {over.label}{took}.")
    timed = [(point.seconds, point) for point in points if point.seconds is not None and point.status in ENDED]
    if timed and not order:
        spent, point = min(timed, key=lambda one: one[0])
        found.append(f"The quickest: {point.label} (point {point.number}), {duration(spent)}; no metric was measured.")
    counts = Counter(plain_name(point.status) for point in points)
    found.append(f"Of {count(len(points), 'point')}: {', '.join(f'{n} {status}' for status, n in counts.items())}.")
    fronts = [_repeated(point, order) for point in order if point.number in front and point.seconds is not None]
    if quick := [each for each in fronts if order[0] not in each.points]:
        first = min(quick, key=lambda each: each.seconds)
        found.append(f"The quickest on the front: {first.label}, {number(first.mean)} after {duration(first.seconds)}.")
    return found


def _repeated(point: Point, order: list[Point]) -> Repeated:
    return Repeated([other for other in order if other.repeats == point.repeats])


def _remark(result: Result) -> str:
    search, spent = result.data.get("search"), result.data.get("seconds")
    axes = part_of(result.data.get("axes"))
    said = [
        f"search: {search}" if search else "",
        f"axes: {', '.join(map(str, axes))}" if axes else "",
        f"took {duration(spent)}" if is_finite(spent) else "",
    ]
    return "; ".join(text for text in said if text)


def _over_axes(result: Result, measured: list[Point], metric: str, mode: Mode) -> list[Html]:
    placed = [Placed(point.settings, point.best or 0, f"{point.number}: {point.label}") for point in measured]
    return over_axes(list(part_of(result.data.get("axes"))), placed, metric, mode)


def _setting(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key.lstrip("+"), value


def _commands(result: Result, order: list[Point]) -> list[str]:
    commands = [result.command] if result.command else []
    if order:
        axes = set(part_of(result.data.get("axes")))
        words = result.data.get("words")
        fixed = [str(word) for word in words if _setting(str(word))[0] not in axes] if isinstance(words, list) else []
        commands.append("accel train " + words_of([*fixed, *order[0].words]))
    if order and (run := result.run(order[0].row.get("run"))):
        commands.append(f"accel report {shlex.quote(str(run.path))}")
    return commands
