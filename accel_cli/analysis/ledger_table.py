"""A ledger in the terminal: a line a row, and the sentence that says what was found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from accel_cli.analysis.result import ratio_text
from accel_cli.analysis.statistics import CANNOT_TELL, HELPS, HURTS, NO_EFFECT, fewest_rounds
from accel_cli.analysis.wording import NOTHING, duration, number, plain_name, size

HEADER = ("technique", "time of a step", "verdict", "step", "samples/s", "memory", "sent a step", "once", "pays after")
LEAST_MISSED = ("once", "samples/s", "sent a step", "memory", "step", "pays after")
"""In this order columns make room."""
GAP = "  "
TITLES = {
    "alone": "each alone, against the baseline",
    "together": "one after another added, against the baseline",
    "left_out": "what each adds to all the others",
}


def lines(content: dict[str, Any], width: int | None = None) -> list[str]:
    """The whole table, its parts under their titles; of ``width`` columns at most, where that leaves what matters.

    What whole runs came to stands in a second one.
    """
    base = content["baseline"]
    header = [*HEADER, *(["test metric"] if _has(content, "metric") else [])]
    header += ["time to target"] if _has(content, "seconds_to_target") else []
    header += ["whole run"] if _has(content, "run_seconds") else []
    parts = [("", [_baseline(content, header)])]
    for form, title in TITLES.items():
        if rows := _named(form, [(row, _cells(row, header)) for row in content["rows"] if row["form"] == form]):
            parts.append((title, rows))
    shown, left_out = _fitting([header, *(row for _, rows in parts for row in rows)], width)
    out = _table(header, parts, shown)
    if len(header) > len(HEADER):
        out += ["", *_table(header, parts, [0, *range(len(HEADER), len(header))])]
    out += [f"  {row['technique']}: {row['status']}: {row['cause']}" for row in content["rows"] if row["cause"]]
    out += [
        f"  {row['technique']}: unequal work: {', '.join(row['unequal'])}; times are a sample's"
        for row in content["rows"]
        if row["unequal"] and row["form"] == "alone"
    ]
    if base:
        floor = f"baseline against itself {ratio_text(content['floor'])}"
        out.append(f"  {floor}, {content['rounds']} rounds, margin {content['margin']:.0%}")
    if left_out:
        out.append(f"  a wider terminal, or the report, also has: {', '.join(left_out)}")
    return out


def _named(form: str, rows: list[tuple[dict[str, Any], list[str]]]) -> list[list[str]]:
    """Cells of a form's rows; of those that grow by one technique after another, each names what it adds."""
    if form == "together":
        for (before, _), (row, cells) in pairwise(rows):
            cells[0] = f"  {row['technique'].removeprefix(before['technique']).strip()}"
    return [cells for _, cells in rows]


def _fitting(cells: list[list[str]], width: int | None) -> tuple[list[int], list[str]]:
    """(the columns of the probes' table, the titles of those for which there is no room); empty ones are not missed."""
    header, *rows = cells
    shown = [c for c in range(len(HEADER)) if c < 3 or any(row[c] not in ("", NOTHING) for row in rows)]
    left_out: list[str] = []
    for title in LEAST_MISSED:
        if width is None or sum(max(len(row[c]) for row in cells) + len(GAP) for c in shown) - len(GAP) <= width:
            break
        if (column := header.index(title)) in shown:
            shown.remove(column)
            left_out.append(title)
    return shown, left_out


def _table(header: list[str], parts: list[tuple[str, list[list[str]]]], shown: Sequence[int]) -> list[str]:
    rows = [header, *(row for _, part in parts for row in part)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]

    def line(row: list[str]) -> str:
        return GAP.join(row[column].ljust(widths[column]) for column in shown).rstrip()

    out = [line(header)]
    for title, part in parts:
        out += ([f"  {title}"] if title else []) + [line(row) for row in part]
    return out


def progress(content: dict[str, Any]) -> str:
    measured = [row for row in content["rows"] if row["status"] == "measured"]
    settled = sum(row["settled"] for row in measured)
    spent = duration(content["probe_seconds"])
    fewest = fewest_rounds(content["error"])
    least = f" of {fewest} at least" if content["rounds"] < fewest else ""
    return f"round {content['rounds']}{least}: {settled} of {len(measured)} verdicts settled, {spent}"


def too_few(content: dict[str, Any]) -> str:
    """What to type where the rounds were too few for any verdict; empty where they were not."""
    fewest, rounds = fewest_rounds(content["error"]), content["rounds"]
    if rounds >= fewest or not any(row["status"] == "measured" for row in content["rows"]):
        return ""
    needed = math.ceil(content["probe_seconds"] / rounds * fewest / 60) if rounds else "of more minutes"
    return f"no verdict comes of less than {fewest} rounds, and there was time for {rounds}: try --budget {needed}"


def headline(content: dict[str, Any]) -> str:
    """What each technique buys by itself, in a sentence."""
    said = {word: [] for word in (HELPS, HURTS, NO_EFFECT, CANNOT_TELL)}  # type: dict[str, list[str]]
    for row in content["rows"]:
        if row["form"] == "alone" and row["status"] == "measured":
            said[row["verdict"]].append(row["technique"] + _changes(row))
    named = [f"{', '.join(names)}: {word}" for word, names in said.items() if names]
    failed = [row["technique"] for row in content["rows"] if row["form"] == "alone" and row["status"] != "measured"]
    return "; ".join([*named, *([f"{', '.join(failed)}: did not run"] if failed else [])])


def difference_text(metric: dict[str, Any] | None) -> str:
    """``-0.0120 [-0.0160, -0.0080]``, and whether that is beyond noise."""
    if metric is None:
        return NOTHING
    if (found := metric["difference"]) is None:
        return number(metric["values"][0])
    text = f"{found['value']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]"
    return text + (" CHANGED" if metric["beyond_noise"] else "")


def _changes(row: dict[str, Any]) -> str:
    metric = row["metric"]
    if not metric or not metric["beyond_noise"]:
        return ""
    return f" (changes test {plain_name(metric['name'])} by {metric['difference']['value']:+.4f})"


def _has(content: dict[str, Any], key: str) -> bool:
    return any(row[key] for row in content["rows"])


def _baseline(content: dict[str, Any], header: Sequence[str]) -> list[str]:
    base = content["baseline"]
    cells = ["baseline", "1", "", *_facts(base), NOTHING]
    if "test metric" in header:
        values = [value for value in base["metric"]["values"] if value is not None]
        cells.append(f"{sum(values) / len(values):.4f}, n={len(values)}" if values else NOTHING)
    for title, key in (("time to target", "seconds_to_target"), ("whole run", "run_seconds")):
        if title in header:
            values = [value for value in base[key]["values"] if value is not None]
            cells.append(duration(sum(values) / len(values)) if values else "not reached")
    return cells


def _cells(row: dict[str, Any], header: Sequence[str]) -> list[str]:
    said = row["verdict"] if row["status"] == "measured" else row["status"]
    pays = f"step {row['break_even_step']:,}" if row["break_even_step"] is not None else NOTHING
    cells = [f"  {row['technique']}", ratio_text(row["ratio"]), said, *_facts(row), pays]
    if "test metric" in header:
        cells.append(difference_text(row["metric"]))
    for title, key in (("time to target", "seconds_to_target"), ("whole run", "run_seconds")):
        if title in header:
            cells.append(_times(row[key]))
    return cells


def _times(found: dict[str, Any] | None) -> str:
    if found is None:
        return NOTHING
    if found["ratio"] is not None:
        return ratio_text(found["ratio"])
    reached = sum(value is not None for value in found["values"])
    return f"reached in {reached} of {len(found['values'])}"


def _facts(of: dict[str, Any]) -> list[str]:
    if not of.get("step_milliseconds"):
        return [NOTHING] * 5
    memory = of["peak_memory_bytes"]
    once = {name: seconds for name, seconds in of["one_off_seconds"].items() if seconds >= 0.1}
    return [
        f"{number(of['step_milliseconds'], 3)} ms",
        number(of["samples_per_second"], 3),
        size(memory["device"] or memory["host"]),
        size(of["communication_bytes"]) if of["communication_bytes"] else NOTHING,
        ", ".join(f"{name} {duration(seconds)}" for name, seconds in once.items()) or NOTHING,
    ]
