"""Which curves a report draws of its runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from accel_cli.analysis.chart import Point, Series, line_chart
from accel_cli.analysis.markup import Html, element
from accel_cli.analysis.run_folder import Record, RunFolder
from accel_cli.analysis.wording import as_number, is_finite, plain_name

Picker = Callable[[RunFolder], list[Record]]
TIME_UNITS = (("hours", 3600.0, 3 * 3600.0), ("minutes", 60.0, 300.0), ("seconds", 1.0, 0.0))


def figures(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Html]:
    """Loss, evaluation metrics, rates, speed: over steps, samples and time; all runs in each."""

    def draw(title: str, picker: Picker, x: str, y: str, **options: bool) -> Html | None:
        unit, divisor = _time_unit(runs) if x == "seconds" else (x, 1.0)
        series = [
            Series(name, points_of(picker(run), x, y, divisor), place, best_mark(run, y, x, divisor))
            for place, (run, name) in enumerate(zip(runs, names, strict=True))
        ]
        if not any(is_finite(value) for one in series for _, value in one.points):
            return None
        bad = sum(not is_finite(value) for one in series for _, value in one.points)
        note = element("p", f"{bad} records are not finite and leave gaps.", class_="quiet") if bad else None
        x_label = "steps" if x == "step" else unit
        chart = line_chart(series, title=title, x_label=x_label, y_label=plain_name(y), **options)
        return element("figure", element("figcaption", title), chart, note)

    def training(run: RunFolder) -> list[Record]:
        return run.training

    def evaluations(run: RunFolder) -> list[Record]:
        return run.evaluations

    own = dict.fromkeys(name for run in runs for name in run.evaluation_metrics[:1] if not name.startswith("test_"))
    measured = dict.fromkeys(name for run in runs for name in run.evaluation_metrics)
    metrics = [name for name in measured if not name.startswith("test_")]  # read once: a number, not a curve
    drawn = [
        draw("Train loss over steps", training, "step", "loss", log=True, smooth=True),
        draw("Train loss over time", training, "seconds", "loss", log=True, smooth=True),
        *(
            draw(f"{plain_name(name).capitalize()} over {words}", evaluations, x, name, log=name.endswith("loss"))
            for name in own
            for x, words in (("seconds", "time"), ("samples", "samples"))
        ),
        *(
            draw(f"{plain_name(name).capitalize()} over steps", evaluations, "step", name, log=name.endswith("loss"))
            for name in metrics
        ),
        draw("Learning rate", training, "step", "learning_rate"),
        draw("Momentum", training, "step", "momentum"),
        draw("Samples per second", training, "step", "samples_per_second", smooth=True),
    ]
    return [figure for figure in drawn if figure is not None]


def points_of(records: Sequence[Record], x: str, y: str, divisor: float = 1.0) -> list[Point]:
    """(x, y) of the records that have both; y may be NaN."""
    return [
        (across / divisor, up)
        for record in records
        if (across := as_number(record.get(x))) is not None and (up := as_number(record.get(y))) is not None
    ]


def best_mark(run: RunFolder, name: str, x: str = "step", divisor: float = 1.0) -> Point | None:
    """Where the run's own validation metric was best; over another ``x``, where that step's record stands."""
    metric = run.summary["metric"]
    own = name in (metric["name"], f"validation_{metric['name']}")
    known = is_finite(metric["best_step"]) and is_finite(metric["best"])
    if not (own and known):
        return None
    at = (record.get(x) for record in run.evaluations if record.get("step") == metric["best_step"])
    across = metric["best_step"] if x == "step" else next(at, None)
    at_best = as_number(across)
    return None if at_best is None else (at_best / divisor, metric["best"])


def _time_unit(runs: Sequence[RunFolder]) -> tuple[str, float]:
    longest = max((r["seconds"] for run in runs for r in run.training if is_finite(r.get("seconds"))), default=0.0)
    return next((unit, divisor) for unit, divisor, least in TIME_UNITS if longest >= least)
