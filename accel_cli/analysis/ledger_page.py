"""What a ledger found: does each technique help, alone, together, and left out of the whole?"""

from __future__ import annotations

from collections import Counter
from typing import Any

from accel_cli.analysis import pareto, technique_rows
from accel_cli.analysis.findings import Cell, Findings, Part, Table
from accel_cli.analysis.markup import Html
from accel_cli.analysis.reading import Record
from accel_cli.analysis.result import Interval, Result, count, finite_or, interval, part_of, spread, words_of
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.technique_rows import changed_metric, technique, verdict
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name, share, size

FORMS = {
    "alone": ("Each alone, against the baseline", "alone"),
    "together": ("Together, one added after another", "together"),
    "left_out": ("Left out of the full set", "left out"),
}
MARGIN = 0.01


def findings(result: Result) -> Findings:
    rows, data = result.rows("rows"), result.data
    margin = finite_or(data.get("margin"), MARGIN)
    floor = interval(data.get("floor"))
    parts = []
    for form, (title, _) in FORMS.items():
        if some := [row for row in rows if row.get("form") == form]:
            drawn = technique_rows.plot(some, margin, floor)
            parts.append(Part(title, [drawn] if drawn else [], technique_rows.table(some)))
    if some := [row for row in rows if row.get("form") not in FORMS]:
        parts.append(Part("Other rows", [], technique_rows.table(some)))
    if drawn_pareto := _pareto(result, rows, floor):
        parts.append(Part("Time against metric", drawn_pareto))
    parts.append(Part("The baseline", [], _baseline(result)))
    return Findings(
        title=f"Ledger of {count(len(_techniques(rows)), 'technique')}",
        status=result.status,
        sentences=_sentences(result, rows),
        remarks=_remarks(result, margin, floor),
        parts=parts,
        commands=_commands(result, rows),
        notes=result.notes,
    )


def runs(result: Result) -> list[tuple[str, RunFolder]]:
    """The first whole run of each arm, under the arm's words."""
    arms = [("baseline", result.part("baseline").get("runs"))]
    arms += [(f"{technique(row)} ({row.get('form')})", row.get("runs")) for row in result.rows("rows")]
    found = []
    for name, folders in arms:
        run = result.run(folders[0]) if isinstance(folders, list) and folders else None
        if run is not None:
            found.append((name, run))
    return found


def _techniques(rows: list[Record]) -> list[str]:
    return list(dict.fromkeys(technique(row) for row in rows))


def _sentences(result: Result, rows: list[Record]) -> list[str]:
    alone = [row for row in rows if row.get("form") == "alone"] or rows
    if not alone:
        return ["Nothing was measured yet."]
    counts = Counter(verdict(row).text for row in alone)
    words = {
        "helps": "helps", "hurts": "hurts", "no effect": "has no effect", "cannot tell": "cannot be told",
        "failed": "failed", "refused": "was refused",
    }  # fmt: skip
    several = {"helps": "help", "hurts": "hurt", "no effect": "have no effect", "refused": "were refused"}
    said = [
        f"{number(counts[name])} {several.get(name, words[name]) if counts[name] > 1 else words[name]}"
        for name in words
        if counts[name]
    ]
    said += [f"{n} {name}" for name, n in counts.items() if name not in words]
    together = [row for row in rows if row.get("form") == "together" and interval(row.get("ratio"))]
    found = []
    if together and (whole := interval(together[-1].get("ratio"))):
        found.append(
            f"Together, a step takes {whole.text()} times as long as the baseline's: {verdict(together[-1]).text}."
        )
    found.append(f"Of {count(len(alone), 'technique')} alone, {_listed(said)}." if said else "")
    measured = [(one, row) for row in alone if (one := interval(row.get("ratio")))]
    for name, place in (("helps", 0), ("hurts", -1)):
        these = sorted((one.value, one.text(), technique(row)) for one, row in measured if row.get("verdict") == name)
        if these:
            found.append(f"{these[place][2]} {name} most: {these[place][1]}.")
    changed = [text for row in alone if (text := changed_metric(row))]
    found += [f"{text}." for text in changed]
    if not changed and any(part_of(row.get("metric")) for row in alone):
        found.append("None changes the metric beyond noise.")
    return [text for text in found if text]


def _listed(said: list[str]) -> str:
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _remarks(result: Result, margin: float, floor: Interval | None) -> list[str]:
    data, target = result.data, result.part("target")
    error = data.get("error")
    said = [
        f"{count(int(data['rounds']), 'round')} of steps taken in turns" if is_finite(data.get("rounds")) else "",
        f"{count(int(data['seeds']), 'seed')} for whole runs" if is_finite(data.get("seeds")) else "",
        f"the baseline against itself: {floor.text()}" if floor else "the noise floor is not known",
        f"margin {margin:.2g}",
        f"each interval errs {share_of(error)} of the time at most, whenever the rounds stop"
        if is_finite(error)
        else "",
        f"target {plain_name(target.get('metric'))} {number(target.get('value'))}" if target else "",
        f"took {duration(data.get('seconds'))}" if is_finite(data.get("seconds")) else "",
    ]
    return ["; ".join(text for text in said if text) + "."]


def share_of(value: Any) -> str:
    return f"{100 * value:.2g}%" if is_finite(value) else share(value)


def _baseline(result: Result) -> Table:
    base = result.part("baseline")
    facts = {
        "words": words_of(result.data.get("base")) or NOTHING,
        "a step": technique_rows.milliseconds(base.get("step_milliseconds")).text,
        "samples per second": number(base.get("samples_per_second"), 3),
        "global batch": number(base.get("global_batch")),
        "peak memory": technique_rows.memory(base.get("peak_memory_bytes")).text,
        "sent a step": size(base.get("communication_bytes") or None),
        "once": technique_rows.one_off(base.get("one_off_seconds")),
        "metric": technique_rows.over_seeds(base.get("metric")),
        "seconds to the target": technique_rows.over_seeds(base.get("seconds_to_target")),
        "seconds of a whole run": technique_rows.over_seeds(base.get("run_seconds")),
    }
    return Table(["", ""], [[Cell(key), Cell(value)] for key, value in facts.items() if value != NOTHING])


def _pareto(result: Result, rows: list[Record], floor: Interval | None) -> list[Html]:
    """Time of a step against the metric; the metric's bars are the interval of its difference from the baseline's."""
    base = spread(result.part("baseline").get("metric"))
    if base is None:
        return []
    numbers = [*"123456789", *"abcdefghijklmnopqrstuvwxyz"]
    contenders = [pareto.Standing("baseline", "baseline", floor or Interval(1, 1, 1), base)]
    name = "metric"
    for row in rows:
        ratio, metric = interval(row.get("ratio")), part_of(row.get("metric"))
        difference = interval(metric.get("difference"))
        if row.get("form") not in ("alone", "together") or ratio is None or difference is None:
            continue
        name = str(metric.get("name") or name)
        at = Interval(*(base.value + end for end in difference))
        prefix = "+ " if row.get("form") == "together" else ""
        label = technique(row) if len(technique(row)) <= 26 else numbers[min(len(contenders), len(numbers)) - 1]
        words = f"{prefix}{technique(row)}: {ratio.text()} times the step, {plain_name(name)} {at.text(4)}"
        contenders.append(pareto.Standing(prefix + label, words, ratio, at))
    modes = [part_of(row.get("metric")).get("mode") for row in rows]
    guess = "min" if "loss" in name or "error" in name or "perplexity" in name else "max"
    mode: pareto.Mode = "min" if next((mode for mode in modes if mode), guess) == "min" else "max"
    noise = "Bars: the interval of the ratio, and of the metric's difference from the baseline's mean."
    return pareto.picture(
        contenders, metric=name, mode=mode, time="time of a step, baseline = 1", noise=noise
    )  # fmt: skip


def _commands(result: Result, rows: list[Record]) -> list[str]:
    commands = [result.command] if result.command else []
    together = [row for row in rows if row.get("form") == "together"]
    if together:
        listed = [result.data.get("base"), *(row.get("words") for row in together)]
        words = dict.fromkeys(word for some in listed if isinstance(some, list) for word in map(str, some))
        commands.append(f"accel train {words_of(list(words))}".strip())
    return commands
