"""The sections of a report, each from the runs to markup."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any

from accel_cli.analysis import exports as exported
from accel_cli.analysis import wording
from accel_cli.analysis.chart import stacked_bar
from accel_cli.analysis.comparison import differing_settings, what_differs
from accel_cli.analysis.compression import HEADER, bought
from accel_cli.analysis.curves import figures
from accel_cli.analysis.markup import Child, Html, element, join, table
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.wording import NOTHING, is_finite, share
from accel_cli.config.tree import flatten

Runs = Sequence[RunFolder]
Names = Sequence[str]


def section(title: str, *content: Child) -> Html | None:
    """None where there is no content."""
    kept = [child for child in content if child]
    return element("section", element("h2", title), *kept) if kept else None


def stack(figures: Sequence[Html]) -> Html | None:
    """Figures that are no wider than they need be."""
    return element("div", *figures, class_="stack") if figures else None


def curves(runs: Runs, names: Names, title: str = "Curves", *, explained: bool = True) -> Html | None:
    """``explained``: the legend adds what sets the runs apart, where their names do not say it."""
    drawn = figures(runs, names)
    if not drawn:
        return section(title, element("p", "There are no records to draw.", class_="quiet"))
    legend = _legend(runs, names, explained) if len(runs) > 1 else None
    hint = "A ring marks the best value. Thin lines are single records, bold ones a running mean over them."
    return section(title, legend, element("div", *drawn, class_="figures"), element("p", hint, class_="quiet"))


def time_shares(runs: Runs, names: Names) -> Html | None:
    known = [place for place, run in enumerate(runs) if any(map(is_finite, _shares(run).values()))]
    if not known:
        return None
    bars = [
        element(
            "div",
            element("span", names[place], class_="name") if len(runs) > 1 else None,
            stacked_bar(_shares(runs[place])),
            class_="share",
        )
        for place in known
    ]
    used = [part for part in wording.TIME_PARTS if any(_shares(runs[place]).get(part) for place in known)]
    if len(runs) == 1:
        entries = [
            element("li", _part_key(part), part, element("span", f" {share(_shares(runs[0])[part])}", class_="quiet"))
            for part in used
        ]
        return section("Where the time went", *bars, element("ul", *entries, class_="legend"))
    rows: list[list[Child]] = [
        [join(_part_key(part), part), *(share(_shares(runs[place])[part]) for place in known)] for part in used
    ]
    header = ["", *(names[place] for place in known)]
    return section("Where the time went", *bars, table(header, rows, numeric=True, css="narrow"))


def advice(runs: Runs, names: Names) -> Html | None:
    items = []
    for run, name in zip(runs, names, strict=True):
        for row in run.summary["advice"]:
            override = row.get("override")
            items.append(
                element(
                    "li",
                    element("span", f"{name}: ", class_="quiet") if len(runs) > 1 else None,
                    element("code", str(override)) if override else None,
                    element("span", f" {row.get('finding')}"),
                    element("div", str(row.get("evidence") or ""), class_="quiet"),
                )
            )
    return section("Worth trying next", element("ol", *items, class_="advice") if items else None)


def compression(runs: Runs, names: Names) -> Html | None:
    rows: list[list[Child]] = []
    notes: list[Child] = []
    for run, name in zip(runs, names, strict=True):
        for row in bought(run.summary):
            rows.append([*([name] if len(runs) > 1 else []), *row[:7]])
            notes += [element("li", f"{row.name}: {note}") for note in row.notes]
    header = [*(["run"] if len(runs) > 1 else []), *HEADER]
    listed = element("ul", *notes, class_="quiet") if notes else None
    return section("What compression bought", table(header, rows) if rows else None, listed)


def exports(runs: Runs, names: Names) -> Html | None:
    """A table for each form that a run's model was exported to, PyTorch's own numbers beside it."""
    shown = [
        join(
            element("p", f"{name}: " if len(runs) > 1 else None, element("strong", str(report.get("format")))),
            table(["", "PyTorch", "exported", ""], [list(row) for row in exported.rows(report)], css="narrow"),
            element("p", exported.about(report), class_="quiet"),
        )
        for run, name in zip(runs, names, strict=True)
        for report in run.exports
    ]
    hint = "The exported file ran in its own runtime on every sample of both splits. Latencies were taken in turns."
    return section("Export", *shown, element("p", hint, class_="quiet") if shown else None)


def settings(runs: Runs, names: Names, *, whole: bool = True) -> Html | None:
    """Those that differ first, then each run.yaml where they are asked for ``whole``."""
    differing = differing_settings(runs)
    compared = None
    if differing:
        rows: list[list[Child]] = [[element("code", key), *values] for key, values in differing.items()]
        compared = table(["setting", *names], rows)
    elif len(runs) > 1:
        compared = element("p", "No setting differs: these runs repeat one another.", class_="quiet")
    files = [
        _folded(f"run.yaml of {name}" if len(runs) > 1 else "All settings: run.yaml", run.settings_text)
        for run, name in zip(runs, names, strict=True)
        if whole and run.settings_text
    ]
    return section("Settings", compared, *files)


def decisions(runs: Runs, names: Names) -> Html | None:
    rows: list[list[Child]] = []
    for run, name in zip(runs, names, strict=True):
        for row in run.decisions:
            cells: list[Child] = [
                element("code", f"{row.get('key')}={_short(row.get('value'))}"),
                str(row.get("why") or ""),
            ]
            rows.append([name, *cells] if len(runs) > 1 else cells)
    header = ["run", "decided", "why"] if len(runs) > 1 else ["decided", "why"]
    return section("What auto decided", table(header, rows, css="narrow") if rows else None)


def environment(runs: Runs, names: Names) -> Html | None:
    said = [dict(flatten(run.environment)) if run.environment else {} for run in runs]
    keys = dict.fromkeys(key for one in said for key in one)
    rows: list[list[Child]] = [[key.replace("_", " "), *(one.get(key, NOTHING) for one in said)] for key in keys]
    header = ["", *names] if len(runs) > 1 else ["", ""]
    return section("Environment", table(header, rows, css="narrow") if rows else None)


def commands(runs: Runs, names: Names) -> Html | None:
    blocks = []
    for run, name in zip(runs, names, strict=True):
        path = shlex.quote(str(run.path))
        lines = [run.command] if run.command else []
        lines.append(f"accel train --run {shlex.quote(str(run.path / 'run.yaml'))}")
        if run.summary["status"] in ("interrupted", "failed", None):
            lines.append(f"accel resume {path}")
        heading = element("p", name, class_="name") if len(runs) > 1 else None
        blocks.append(join(heading, element("pre", "\n".join(lines))))
    return section("Do it again", *blocks)


def _legend(runs: Runs, names: Names, explained: bool) -> Html:
    differences = what_differs(runs) if explained else [""] * len(runs)
    entries = [
        element("li", run_key(place), name, element("span", f" {differences[place]}", class_="quiet"))
        for place, name in enumerate(names)
    ]
    return element("ul", *entries, class_="legend")


def run_key(place: int) -> Html:
    return element("i", class_=f"key run-{place}")


def _part_key(part: str) -> Html:
    return element("i", class_=f"key part-{part}")


def _shares(run: RunFolder) -> dict[str, Any]:
    return run.summary["time_share"]


def _folded(title: str, text: str) -> Html:
    return element("details", element("summary", title), element("pre", text))


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
