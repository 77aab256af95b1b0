"""What a ledger found: does each technique help, alone, together, and left out of the whole?"""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any

from accel_cli.analysis import technique_rows
from accel_cli.analysis.findings import Cell, Findings, Part, Table
from accel_cli.analysis.markup import Html
from accel_cli.analysis.measures import memory, milliseconds, seeds_cell, text_of, values_of
from accel_cli.analysis.pareto import Mode, Standing, picture
from accel_cli.analysis.reading import Record
from accel_cli.analysis.result import (
    Interval,
    Result,
    count,
    finite_or,
    interval,
    part_of,
    ratio_text,
    spread,
    words_of,
)
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.technique_rows import changed_metric, technique, verdict
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name, size

TITLES = {
    "alone": "Each alone, against the baseline",
    "together": "One after another added, against the baseline",
    "left_out": "What each adds to all the others",
}
MARGIN = 0.01
SAID = {
    "helps": ("helps", "help"), "hurts": ("hurts", "hurt"), "no effect": ("has no effect", "have no effect"),
    "cannot tell": ("is undecided", "are undecided"), "failed": ("failed", "failed"),
    "refused": ("was refused", "were refused"),
}  # fmt: skip
"""Of one technique, and of several."""


def findings(result: Result) -> Findings:
    rows, floor = result.rows("rows"), interval(result.data.get("floor"))
    margin = finite_or(result.data.get("margin"), MARGIN)
    forms = dict.fromkeys([*TITLES, *(str(row.get("form")) for row in rows)])
    parts = [_part(form, [row for row in rows if str(row.get("form")) == form], margin, floor) for form in forms]
    parts += [Part("Time against metric", _pareto(result, rows, floor)), Part("The baseline", [], _baseline(result))]
    names = dict.fromkeys(technique(row) for row in _alone(rows))
    return Findings(
        title=f"Ledger of {count(len(names), 'technique')}",
        status=result.status,
        sentences=_sentences(rows),
        remarks=[_remark(result, margin, floor)],
        parts=[part for part in parts if part.figures or (part.table and part.table.rows)],
        commands=_commands(result, rows),
        notes=result.notes,
    )


def runs(result: Result) -> list[tuple[str, RunFolder]]:
    """The first whole run of each arm, under the arm's words."""
    arms = {"baseline": result.part("baseline").get("runs")}
    for row in result.rows("rows"):
        arms.setdefault(str(row.get("arm") or technique(row)), row.get("runs"))
    found = []
    for name, folders in arms.items():
        run = result.run(folders[0]) if isinstance(folders, list) and folders else None
        if run is not None:
            found.append((name, run))
    return found


def _alone(rows: list[Record]) -> list[Record]:
    return [row for row in rows if row.get("form") == "alone"] or rows


def _part(form: str, rows: list[Record], margin: float, floor: Interval | None) -> Part:
    drawn = technique_rows.plot(rows, margin, floor)
    return Part(TITLES.get(form, form), [drawn] if drawn else [], technique_rows.table(rows))


def _sentences(rows: list[Record]) -> list[str]:
    alone = _alone(rows)
    if not alone:
        return ["Nothing was measured yet."]
    found = []
    together = [ratio for row in rows if row.get("form") == "together" and (ratio := interval(row.get("ratio")))]
    if together:
        found.append(f"All together, a step takes {ratio_text(together[-1])} times as long as the baseline's.")
    counts = Counter(verdict(row).text for row in alone)
    order = [*SAID, *(name for name in counts if name not in SAID)]
    said = [f"{counts[name]} {SAID.get(name, (name, name))[counts[name] > 1]}" for name in order if counts[name]]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    found.append(f"Of {count(len(alone), 'technique')} alone, {listed}.")
    measured = [(ratio, technique(row), row) for row in alone if (ratio := interval(row.get("ratio")))]
    for word, choose in (("helps", min), ("hurts", max)):
        these = [(ratio, name) for ratio, name, row in measured if row.get("verdict") == word]
        if these:
            ratio, name = choose(these)
            found.append(f"{name} {word} most: {ratio_text(ratio)} times the step.")
    changed = [text for row in alone if (text := changed_metric(row))]
    if not changed and any(interval(part_of(row.get("metric")).get("difference")) for row in alone):
        found.append("None of them changes the metric beyond noise.")
    return [*found, *(f"{text}." for text in changed)]


def _remark(result: Result, margin: float, floor: Interval | None) -> str:
    data, target = result.data, result.part("target")
    error = finite_or(data.get("error"), 0)
    said = [
        f"{count(int(data['rounds']), 'round')} of steps taken in turns" if is_finite(data.get("rounds")) else "",
        f"{count(int(data['seeds']), 'seed')} for whole runs" if is_finite(data.get("seeds")) else "",
        f"the baseline against itself: {ratio_text(floor)}" if floor else "the noise floor is not known",
        f"margin {100 * margin:.2g}%",
        f"intervals of a step miss in {100 * error:.2g}% at most, whenever rounds stop" if error else "",
        f"target: {plain_name(target.get('metric'))} {number(target.get('value'))}" if target else "",
        f"took {duration(data.get('seconds'))}" if is_finite(data.get("seconds")) else "",
    ]
    return "; ".join(text for text in said if text)


def _baseline(result: Result) -> Table:
    base = result.part("baseline")
    facts = {
        "words": words_of(result.data.get("base")) or NOTHING,
        "a step": milliseconds(base.get("step_milliseconds")).text,
        "samples per second": number(base.get("samples_per_second"), 3),
        "global batch": number(base.get("global_batch")),
        "peak memory": memory(base.get("peak_memory_bytes")).text,
        "sent a step": size(base.get("communication_bytes") or None),
        "once": technique_rows.one_off(base.get("one_off_seconds")),
        "metric": text_of(seeds_cell(values_of(base.get("metric")))),
        "to the target": text_of(seeds_cell(values_of(base.get("seconds_to_target")), " s")),
        "whole run": text_of(seeds_cell(values_of(base.get("run_seconds")), " s")),
    }
    return Table(["", ""], [[Cell(key), Cell(value)] for key, value in facts.items() if value != NOTHING])


def _pareto(result: Result, rows: list[Record], floor: Interval | None) -> list[Html]:
    """Time of a step against the metric, whose bars are the interval of its difference from the baseline's mean."""
    base = result.part("baseline").get("metric")
    mean = spread(values_of(base))
    if mean is None:
        return []
    contenders = [Standing("baseline", "baseline", floor or Interval(1, 1, 1), mean)]
    for row in rows:
        ratio, metric = interval(row.get("ratio")), part_of(row.get("metric"))
        difference = interval(metric.get("difference"))
        if row.get("form") != "left_out" and ratio and difference:
            at, name = Interval(*(mean.value + end for end in difference)), technique(row)
            words = f"{name}: {ratio_text(ratio)} times the step, metric {at.text('.4g')}"
            contenders.append(Standing(name, words, ratio, at))
    metrics = [part_of(base), *(part_of(row.get("metric")) for row in rows)]
    name = next((str(one["name"]) for one in metrics if one.get("name")), "metric")
    noise = "Bars: the interval of the ratio, and of the metric's difference from the baseline's mean."
    return picture(contenders, metric=name, mode=mode_in(metrics), time="time of a step, baseline = 1", noise=noise)


def mode_in(metrics: list[Record]) -> Mode:
    return "min" if next((one["mode"] for one in metrics if one.get("mode")), "max") == "min" else "max"


def _commands(result: Result, rows: list[Record]) -> list[str]:
    """The ledger's own, and a run with all techniques."""
    together: list[Any] = [row.get("words") for row in rows if row.get("form") == "together"]
    try:
        own = shlex.split(result.command)
    except ValueError:
        own = []
    start = own[own.index("--run") :][:2] if "--run" in own else []
    base = result.data.get("base")
    listed = [base, together[-1]] if together else []
    words = [str(word) for some in listed if isinstance(some, list) for word in some]
    commands = [result.command] if result.command else []
    return [*commands, f"accel train {words_of([*start, *words])}"] if words else commands
