"""Write one HTML page, or Markdown, about runs or about a study: self-contained, for a colleague or an archive."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from accel_cli.analysis import headline, run_findings, sections, study_page
from accel_cli.analysis.comparison import labels
from accel_cli.analysis.markdown import markdown
from accel_cli.analysis.markup import Html, element, join
from accel_cli.analysis.result import Result, kind_of
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.errors import ConfigError, Problem, ResourceError

PALETTE = 8
"""Colours of runs in report.css; a ninth run starts over, dashed."""


def write_report(folders: Sequence[Path], output: Path, *, as_markdown: bool = False) -> Path:
    """Read the folders of runs, or of one study, write the page, and return its path.

    Raises ConfigError for a path that is no folder and for a study beside anything else, ResourceError when the page
    cannot be written. Missing and damaged files inside a folder are named on the page.
    """
    text = markdown_text(folders) if as_markdown else page_text(folders)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"cannot write {output}: {error.strerror}", "give another path for the report") from error
    return output


def page_text(folders: Sequence[Path]) -> str:
    """The whole document. Raises as ``write_report`` does."""
    result = _study(folders)
    return page([RunFolder(path) for path in folders]) if result is None else study(result)


def markdown_text(folders: Sequence[Path]) -> str:
    """For a pull request. Raises as ``write_report`` does."""
    result = _study(folders)
    if result is not None:
        return markdown(study_page.findings(result))
    runs = [RunFolder(path) for path in folders]
    return markdown(run_findings.findings(runs, labels(runs)))


def page(runs: Sequence[RunFolder]) -> str:
    """The document about runs."""
    names = labels(runs)
    title = names[0] if len(runs) == 1 else f"{len(runs)} runs"
    lead = [
        element("p", text, class_="lead" if not place else None)
        for place, text in enumerate(run_findings.sentences(runs, names))
    ]
    body = join(
        element("header", element("p", "accel report", class_="quiet"), element("h1", title)),
        headline.badge(runs[0]) if len(runs) == 1 else None,
        *lead,
        headline.failures(runs, names),
        headline.missing(runs, names),
        headline.headline(runs, names),
        sections.section("Time against metric", sections.stack(run_findings.pareto(runs, names))),
        sections.curves(runs, names),
        sections.time_shares(runs, names),
        sections.compression(runs, names),
        sections.advice(runs, names),
        sections.exports(runs, names),
        sections.settings(runs, names),
        sections.decisions(runs, names),
        sections.environment(runs, names),
        sections.commands(runs, names),
    )
    return _document(title, body, len(runs))


def study(result: Result) -> str:
    """The document about a ledger, sweep, tune or bench."""
    return _document(f"{result.kind}: {result.name}", study_page.body(result), PALETTE)


def _study(folders: Sequence[Path]) -> Result | None:
    """The study that is asked for; None where all are runs."""
    problems = [
        Problem(str(path), "no such run folder, nor a study", "accel runs list shows the runs here")
        for path in folders
        if not path.is_dir()
    ]
    if problems or not folders:
        raise ConfigError(problems or [Problem("accel report", "names no run", "accel runs list shows the runs here")])
    kinds = {path: kind for path in folders if (kind := kind_of(path))}
    if not kinds:
        return None
    if len(folders) > 1:
        lines = [f"accel report {shlex.quote(str(path))}" for path in kinds]
        runs = [shlex.quote(str(path)) for path in folders if path not in kinds]
        lines += [f"accel report {' '.join(runs)}"] if runs else []
        where, kind = next(iter(kinds.items()))
        raise ConfigError(Problem(str(where), f"is a {kind}, which has a page of its own", "; ".join(lines)))
    return Result(folders[0], kinds[folders[0]])


def _document(title: str, body: Html, colours: int) -> str:
    return Template(_own("report.html")).substitute(
        title=element("title", title),
        style=_own("report.css") + _run_colours(colours),
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
