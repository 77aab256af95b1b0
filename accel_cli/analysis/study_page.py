"""The page of a ledger, sweep, tune or bench, from what it found."""

from __future__ import annotations

from types import ModuleType

from accel_cli.analysis import bench_page, ledger_page, sections, sweep_page, tune_page
from accel_cli.analysis.cells import html_table
from accel_cli.analysis.comparison import differing_settings
from accel_cli.analysis.findings import Findings, Part, Table, plain
from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.result import Result
from accel_cli.analysis.sections import section
from accel_cli.config.tree import flatten

PAGES: dict[str, ModuleType] = {"ledger": ledger_page, "sweep": sweep_page, "tune": tune_page, "bench": bench_page}


def findings(result: Result) -> Findings:
    """What the study found, for a page or for Markdown."""
    found: Findings = PAGES[result.kind].findings(result)
    return found


def body(result: Result) -> Html:
    found = findings(result)
    names, runs = zip(*PAGES[result.kind].runs(result), strict=True) if PAGES[result.kind].runs(result) else ((), ())
    shown = [f"Curves of {len(runs)} of its runs"] if runs else []
    return join(
        element("header", element("p", "accel report", class_="quiet"), element("h1", found.title)),
        element("p", element("span", found.status.words, class_=f"badge {found.status.tone}"))
        if found.status
        else None,
        missing(found.notes),
        headline(found),
        *map(_part, found.parts),
        sections.curves(runs, names, shown[0], explained=False) if runs else None,
        sections.time_shares(runs, names) if runs else None,
        sections.settings(runs, names, whole=False) if runs and differing_settings(runs) else None,
        _environment(result),
        section("Do it again", element("pre", "\n".join(found.commands)) if found.commands else None),
    )


def headline(found: Findings) -> Html:
    """The first sentence large, the rest below it."""
    first, *rest = [*found.sentences, ""] if found.sentences else [""]
    remarks = [element("p", text, class_="quiet") for text in found.remarks if text]
    return element(
        "section",
        element("p", first, class_="lead"),
        *(element("p", text) for text in rest if text),
        *remarks,
        class_="headline",
    )


def missing(notes: object) -> Html | None:
    listed = [element("li", str(note)) for note in notes] if isinstance(notes, list | tuple) else []
    if not listed:
        return None
    return element("aside", element("strong", "Missing from this report"), element("ul", *listed), class_="box warning")


def _part(part: Part) -> Html | None:
    remarks = [element("p", text, class_="quiet") for text in part.remarks]
    return section(
        part.title,
        sections.stack(part.figures),
        html_table(part.table) if part.table and part.table.rows else None,
        *remarks,
    )


def _environment(result: Result) -> Html | None:
    rows = [[plain(key.replace("_", " ")), plain(value)] for key, value in flatten(result.environment) if key]
    return section("Environment", html_table(Table(["", ""], rows), "narrow") if rows else None)
