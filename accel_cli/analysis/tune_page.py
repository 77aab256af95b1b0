"""What tune chose, what each of its settings bought, and how the other candidates fell out stage by stage."""

from __future__ import annotations

from collections import Counter
from typing import Any

from accel_cli.analysis import pareto, technique_rows
from accel_cli.analysis.findings import Cell, Findings, Form, Part, Table
from accel_cli.analysis.markup import Html, element
from accel_cli.analysis.measures import (
    difference_cell,
    memory,
    milliseconds,
    numbered,
    ratio_cell,
    seeds_cell,
    values_of,
)
from accel_cli.analysis.reading import Record
from accel_cli.analysis.result import Interval, Result, count, interval, part_of, ratio_text, short, spread, words_of
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.technique_rows import verdict
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name

FORMS: dict[str, Form] = {"chosen": "good", "finalist": "good", "failed": "bad", "refused": "warning"}
PLACES = ("chosen", "finalist", "measured", "dropped", "failed", "refused")
MARGIN = 0.01


def findings(result: Result) -> Findings:
    candidates, bought = result.rows("candidates"), result.rows("bought")
    chosen = result.part("chosen")
    drawn = technique_rows.plot(bought, MARGIN)
    parts = [
        Part("What each setting bought", [drawn] if drawn else [], technique_rows.table(bought) if bought else None),
        Part("The finalists, over seeds", _pareto(result), _finalists(result)),
        Part("Stage by stage", [_funnel(candidates)] if candidates else [], _candidates(candidates)),
    ]
    return Findings(
        title="Tuned settings",
        status=result.status,
        sentences=_sentences(result, chosen, candidates, bought),
        remarks=[_remark(result)],
        parts=[part for part in parts if part.figures or part.table],
        commands=[text for text in (result.command, words_of(chosen.get("command"))) if text],
        notes=result.notes,
    )


def runs(result: Result) -> list[tuple[str, RunFolder]]:
    """The first run of each finalist that names its runs."""
    found = []
    for row in result.rows("finalists"):
        folders = row.get("runs")
        run = result.run(folders[0]) if isinstance(folders, list) and folders else None
        if run is not None:
            found.append((words_of(row.get("words")), run))
    return found


def _sentences(result: Result, chosen: Record, candidates: list[Record], bought: list[Record]) -> list[str]:
    if not chosen:
        return [f"Nothing is chosen yet, of {count(len(candidates), 'candidate')}."]
    words, ratio = words_of(chosen.get("words")), interval(chosen.get("ratio"))
    goal = plain_name(result.data.get("objective") or "time")
    found = [f"The fastest settings found: {words or 'the baseline, as it was'}."]
    if ratio:
        found[0] = f"{words or 'The baseline, as it was'}: {ratio_text(ratio)} times the baseline ({goal})."
    if difference := _difference(chosen):
        floor = result.part("floor")
        allowed = f", of {number(floor.get('loss_allowed'))} allowed" if is_finite(floor.get("loss_allowed")) else ""
        name = plain_name(floor.get("metric") or part_of(chosen.get("metric")).get("name") or "metric")
        found.append(f"It changes {name} by {difference.text('+.3g')}{allowed}.")
    if bought:
        helped = sum(row.get("verdict") == "helps" for row in bought)
        verb = "help" if helped != 1 else "helps"
        found.append(f"Each of its {count(len(bought), 'setting')} was left out in turn: {helped} {verb}.")
    return found


def _difference(chosen: Record) -> Interval | None:
    """The contract puts it beside the metric or inside it."""
    inner = part_of(chosen.get("metric")).get("difference")
    return next(
        (one for key in (inner, chosen.get("difference"), chosen.get("metric")) if (one := interval(key))), None
    )


def _remark(result: Result) -> str:
    spent, budget = result.data.get("spent_seconds"), result.data.get("budget_seconds")
    floor = result.part("floor")
    said = [
        f"objective: {plain_name(result.data.get('objective'))}" if result.data.get("objective") else "",
        f"floor: {plain_name(floor['metric'])} may lose {number(floor.get('loss_allowed'))}"
        if floor.get("metric")
        else "",
        f"took {duration(spent)}" if is_finite(spent) else "",
        f"of {duration(budget)}" if is_finite(budget) else "",
    ]
    return "; ".join(text for text in said if text)


def _stage(row: Record) -> int:
    return int(row["stage"]) if is_finite(row.get("stage")) else 0


def _funnel(candidates: list[Record]) -> Html:
    """How many candidates came to each stage, and what became of those that went no further."""
    rows = []
    for stage in range(max(map(_stage, candidates)) + 1):
        came = sum(_stage(row) >= stage for row in candidates)
        left = Counter(str(row.get("status") or "unknown") for row in candidates if _stage(row) == stage)
        said = f"{came} of {len(candidates)}" + (
            f": {', '.join(f'{n} {name}' for name, n in left.items())}" if left else ""
        )
        bar = element("rect", x=0, y=0, width=f"{100 * came / len(candidates):.1f}%", height="100%", rx=3)
        rows.append(
            element(
                "div",
                element("div", f"stage {stage}", class_="label"),
                element("svg", bar, class_="track funnel", role="img", aria_label=f"stage {stage}: {said}"),
                element("div", said, class_="said"),
                class_="interval",
            )
        )
    return element("div", *rows, class_="intervals")


def _candidates(candidates: list[Record]) -> Table | None:
    def place(row: Record) -> tuple[int, int, float]:
        status = str(row.get("status"))
        ratio = interval(row.get("ratio"))
        return PLACES.index(status) if status in PLACES else len(PLACES), -_stage(row), ratio.value if ratio else 9e9

    rows = []
    for row in sorted(candidates, key=place):
        status = str(row.get("status") or "unknown")
        words = words_of(row.get("words")) or words_of(row.get("name")) or "the baseline"
        rows.append([
            Cell(words, "code", (short(row["cause"]),) if row.get("cause") else ()),
            Cell(status, FORMS.get(status, "badge")),
            Cell(number(_stage(row)), order=_stage(row)),
            ratio_cell(row.get("ratio")),
            milliseconds(row.get("step_milliseconds")),
            memory(row.get("peak_memory_bytes")),
            _metric(row.get("metric")),
        ])  # fmt: skip
    header = ["candidate", "became", "stage", "time of a step", "a step", "peak memory", "metric"]
    return Table(header, rows, sortable=True).without_empty_columns(NOTHING) if rows else None


def _metric(value: Any) -> Cell:
    inner = part_of(value)
    return numbered(inner.get("value", inner.get("best")) if inner else value)


def _seeds(row: Record, name: str) -> list[Any]:
    """``metric_values``, or ``metric`` with its values in it."""
    return values_of(row.get(f"{name}_values")) or values_of(row.get(name))


def _finalists(result: Result) -> Table | None:
    rows = [
        [
            Cell(words_of(row.get("words")) or "the baseline", "code"),
            seeds_cell(_seeds(row, "metric")),
            difference_cell(row.get("difference")),
            seeds_cell(_seeds(row, "seconds_to_target"), " s"),
            verdict(row) if row.get("verdict") else Cell(NOTHING),
        ]
        for row in result.rows("finalists")
    ]
    header = ["finalist", "metric over seeds", "its change", "time to target", "verdict"]
    return Table(header, rows).without_empty_columns(NOTHING) if rows else None


def _pareto(result: Result) -> list[Html]:
    contenders = []
    for row in result.rows("finalists"):
        time, metric = spread(_seeds(row, "seconds_to_target")), spread(_seeds(row, "metric"))
        if time and metric:
            words = words_of(row.get("words")) or "baseline"
            contenders.append(pareto.Standing(words, words, time, metric))
    name = str(result.part("floor").get("metric") or "metric")
    mode: pareto.Mode = "min" if "loss" in name or "error" in name else "max"
    noise = "Bars: lowest to highest over seeds."
    return pareto.picture(contenders, metric=name, mode=mode, time="seconds to the target", noise=noise)
