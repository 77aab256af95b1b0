"""Write one HTML page about one run folder or several: self-contained, for a colleague or an archive."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from accel_cli.analysis import headline, sections
from accel_cli.analysis.comparison import labels
from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.errors import ConfigError, Problem, ResourceError

PALETTE = 8
"""Colours of runs in report.css; a ninth run starts over, dashed."""


def write_report(runs: list[Path], output: Path) -> Path:
    """Read the run folders, write the page, and return its path.

    Raises ConfigError for a path that is no folder, ResourceError when the page cannot be written. Missing and damaged
    files inside a folder are named on the page.
    """
    problems = [Problem(str(path), "no such run folder", "try accel runs list") for path in runs if not path.is_dir()]
    if problems or not runs:
        raise ConfigError(problems or [Problem("accel report", "names no run", "try accel runs list")])
    text = page([RunFolder(path) for path in runs])
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write {output}: {error.strerror}", "give another path for the report") from error
    return output


def page(runs: Sequence[RunFolder]) -> str:
    """The whole document."""
    names = labels(runs)
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    body = join(
        element("header", element("p", "accel report", class_="quiet"), element("h1", title)),
        headline.badge(runs[0]) if len(runs) == 1 else None,
        headline.failures(runs, names),
        headline.missing(runs, names),
        headline.headline(runs, names),
        sections.curves(runs, names),
        sections.time_shares(runs, names),
        sections.compression(runs, names),
        sections.advice(runs, names),
        sections.settings(runs, names),
        sections.decisions(runs, names),
        sections.environment(runs, names),
        sections.commands(runs, names),
    )
    return Template(_own("report.html")).substitute(
        title=element("title", title),
        style=_own("report.css") + _run_colours(len(runs)),
        body=body,
        script=_own("report.js"),
    )


def _run_colours(count: int) -> Html:
    rows = []
    for place in range(count):
        dashed = f" stroke-dasharray: {2 + 3 * (place // PALETTE)} 3;" if place >= PALETTE else ""
        rows.append(f".run-{place} {{ --colour: var(--run-{place % PALETTE});{dashed} }}")
    return Html("\n".join(rows))


def _own(name: str) -> Html:
    return Html(files("accel_cli.analysis").joinpath(name).read_text(encoding="utf-8"))
