"""What one run or several came to, in sentences and one table: the head of their page, and all of their Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from accel_cli.analysis import wording
from accel_cli.analysis.comparison import FINISHED, SEED, unequal_work, what_differs
from accel_cli.analysis.findings import Cell, Findings, Form, Part, Table
from accel_cli.analysis.markup import Html
from accel_cli.analysis.pareto import Measured, Mode, grouped, picture
from accel_cli.analysis.result import count
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.wording import NOTHING, duration, is_finite, number, plain_name, share, size

Runs = Sequence[RunFolder]
PAGE_ONLY = frozenset({"wall", "samples", "processes", "strategy", "most time in"})


def findings(runs: Runs, names: Sequence[str]) -> Findings:
    notes = [
        f"{name}: {note}" if len(runs) > 1 else note
        for run, name in zip(runs, names, strict=True)
        for note in run.notes
    ]
    commands = [f"accel train --run {shlex.quote(str(run.path / 'run.yaml'))}" for run in runs]
    own = [run.command for run in runs if run.command]
    return Findings(
        title=names[0] if len(runs) == 1 else count(len(runs), "run"),
        status=wording.status(runs[0].summary["status"]) if len(runs) == 1 else None,
        sentences=sentences(runs, names),
        remarks=[f"Not equal work: {text}" for text in unequal_work(runs)] if len(runs) > 1 else [],
        parts=[Part("Results", [], _table(runs, names)), *_advice(runs)],
        commands=list(dict.fromkeys(own)) or commands,
        notes=notes,
    )


def sentences(runs: Runs, names: Sequence[str]) -> list[str]:
    """One that says what was found; empty where nothing was measured."""
    if len(runs) == 1:
        said = runs[0].summary
        value, best = said["metric"]["value"], said["metric"]["best"]
        name = plain_name(said["metric"]["name"] or "metric")
        took = f" after {duration(said['train_seconds'])} of steps" if is_finite(said["train_seconds"]) else ""
        if is_finite(value):
            return [f"Test {name} {number(value)}{took}."]
        return [f"Best validation {name} {number(best)}{took}."] if is_finite(best) else []
    mode = mode_of(runs)
    known = [(value, name) for run, name in zip(runs, names, strict=True) if (value := _metric(run)) is not None]
    found = []
    if known:
        value, name = (max if mode == "max" else min)(known)
        metric = plain_name(
            next(run.summary["metric"]["name"] for run in runs if run.summary["metric"]["name"]) or "metric"
        )
        found.append(f"The {'highest' if mode == 'max' else 'lowest'} {metric} is {number(value)}: {name}.")
    quick = [
        (run.summary["train_seconds"], name)
        for run, name in zip(runs, names, strict=True)
        if is_finite(run.summary["train_seconds"]) and run.summary["status"] in FINISHED
    ]
    if len(quick) > 1:
        found.append(
            f"The quickest in steps: {min(quick)[1]}, {duration(min(quick)[0])}; "
            f"the slowest took {duration(max(quick)[0])}."
        )
    return found


def pareto(runs: Runs, names: Sequence[str]) -> list[Html]:
    """Time in steps against the metric; runs that differ in their seed alone are repeats of one another."""
    measured = []
    for place, (run, name) in enumerate(zip(runs, names, strict=True)):
        metric, seconds = _metric(run), run.summary["train_seconds"]
        if metric is not None and is_finite(seconds) and run.summary["status"] in FINISHED:
            settings = sorted((key, value) for key, value in run.flat_settings.items() if key != SEED)
            key = str(settings) if settings else f"run {place}"
            measured.append(Measured(key, name, name, float(seconds), metric))
    contenders = grouped(measured)
    noise = (
        "Bars: lowest to highest over seeds."
        if len(contenders) < len(measured)
        else "One run each: how much is chance is not known."
    )
    metric_name = next((str(run.summary["metric"]["name"]) for run in runs if run.summary["metric"]["name"]), "metric")
    return picture(contenders, metric=metric_name, mode=mode_of(runs), time="seconds in steps", noise=noise)


def mode_of(runs: Runs) -> Mode:
    said = next((run.summary["metric"]["mode"] for run in runs if run.summary["metric"]["mode"]), "max")
    return "min" if said == "min" else "max"


def _metric(run: RunFolder) -> float | None:
    metric = run.summary["metric"]
    return next((float(metric[key]) for key in ("value", "best") if is_finite(metric[key])), None)


def _table(runs: Runs, names: Sequence[str]) -> Table:
    differences = what_differs(runs)
    name = plain_name(next((run.summary["metric"]["name"] for run in runs if run.summary["metric"]["name"]), "metric"))
    header = [
        "run", "status", f"test {name}", "best validation", "samples/s", "in steps", "wall", "samples", "global batch",
        "processes", "device", "strategy", "precision", "peak memory", "most time in",
    ]  # fmt: skip
    rows = []
    for run, label, difference in zip(runs, names, differences, strict=True):
        said = run.summary
        memory = next((value for value in said["peak_memory_bytes"].values() if is_finite(value)), None)
        rows.append([
            Cell(label, "strong", (difference,) if difference else ()),
            Cell(plain_name(said["status"] or "no summary"), _form(said["status"])),
            Cell(number(said["metric"]["value"])),
            Cell(number(said["metric"]["best"])),
            Cell(number(said["samples_per_second"], 3)),
            Cell(duration(said["train_seconds"])),
            Cell(duration(said["wall_seconds"])),
            *(Cell(number(said[key])) for key in ("samples", "global_batch", "world_size")),
            *(Cell(str(said[key] or NOTHING)) for key in ("device", "strategy", "precision")),
            Cell(size(memory)),
            Cell(_most(said["time_share"])),
        ])  # fmt: skip
    return Table(header, rows, page_only=PAGE_ONLY)


def _form(status: object) -> Form:
    tone = wording.status(status).tone
    return "badge" if tone == "plain" else tone


def _most(shares: dict[str, object]) -> str:
    known = {part: value for part, value in shares.items() if is_finite(value)}
    part = max(known, key=lambda name: float(known[name]), default=None)  # type: ignore[arg-type]
    return f"{part} {share(known[part])}" if part else NOTHING


def _advice(runs: Runs) -> list[Part]:
    rows = [
        [
            Cell(str(row.get("override") or ""), "code"),
            Cell(str(row.get("finding") or "")),
            Cell(str(row.get("evidence") or "")),
        ]
        for run in runs[:1]
        for row in run.summary["advice"]
    ]
    return (
        [Part("Worth trying next", [], Table(["override", "finding", "evidence"], rows))]
        if rows and len(runs) == 1
        else []
    )
