"""accel sweep, and train -m: a run for each point; one that cannot run, or fails, is a row and not the end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from accel_cli.analysis.judge import metric_of
from accel_cli.analysis.point import ENDED
from accel_cli.analysis.report import write_report
from accel_cli.analysis.result import count
from accel_cli.analysis.search import TRIALS, Row, Search, drawn, every
from accel_cli.analysis.study import Study
from accel_cli.analysis.sweep import How, Sweep, begin, forget_failures
from accel_cli.cli.check import base
from accel_cli.cli.sweep_view import sweep_view, table
from accel_cli.cli.train import shorter
from accel_cli.config.axes import Parts
from accel_cli.config.compose import axes
from accel_cli.config.machine import has_package
from accel_cli.errors import INTERRUPTED, SAVED_RUN_AGAIN, ConfigError, Problem
from accel_cli.launch.front import FORWARDED


def multirun(arguments: argparse.Namespace) -> int:
    """``train -m``: the grid, one point after another."""
    plain = {"search": "grid", "trials": None, "seed": 0, "pruner": "median", "metric": None, "mode": None,
             "parallel": 1, "limit": None, "retry_failed": False}  # fmt: skip
    return main(argparse.Namespace(**plain, **vars(arguments)))


def main(arguments: argparse.Namespace) -> int:
    check(arguments)
    parts = axes(arguments.overrides, arguments.config_dir)
    metric = metric_of(arguments.metric, arguments.mode) if arguments.metric else None
    search = searcher(arguments, parts)
    opening = {"run_dir": arguments.run_dir, "new": arguments.new, "again": arguments.retry_failed}
    with Study.open("sweep", arguments.words, **opening) as study:
        begin(study, arguments.overrides, parts, arguments.search, search([]).points)
        if arguments.retry_failed:
            forget_failures(study)
        rows = study.content["points"]
        if study.resumed:
            done = sum(row["status"] in ENDED for row in rows)
            said = f"going on with {shorter(study.folder)}: {done} points have ended; --new begins another"
            print(said, file=sys.stderr)
        how = How(
            parallel=arguments.parallel, seconds=arguments.limit, config_dirs=arguments.config_dir,
            plugins=arguments.plugin, base=base(arguments.run), metric=metric,
        )  # fmt: skip
        chosen = search(rows)
        with sweep_view(rows, max(len(rows), chosen.most), json=arguments.json) as view:
            ending = Sweep(study, parts, chosen, how, view).run()
        return finish(study, ending, as_json=arguments.json)


def check(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for flags that do not go together."""
    problems = []
    if arguments.trials is not None and arguments.search == "grid":
        problems.append(Problem(f"--trials {arguments.trials}", "a grid tries every point", "add --search random"))
    if arguments.search == "optuna" and not has_package("optuna"):
        problems.append(Problem("--search optuna", "optuna is not installed", "pip install 'accel-cli[sweep]'"))
    if arguments.mode and not arguments.metric:
        why = "the run's own metric knows whether more is better"
        problems.append(Problem(f"--mode {arguments.mode}", why, "add --metric NAME, or leave it out"))
    for flag in ("dry_run", "cfg", "inline", "resume"):
        if getattr(arguments, flag, None):
            fix = "leave out -m, or the flag"
            problems.append(Problem(f"--{flag.replace('_', '-')}", "is for one run, and -m makes several", fix))
    if problems:
        raise ConfigError(problems)


def searcher(arguments: argparse.Namespace, parts: Parts) -> Callable[[Sequence[Row]], Search]:
    """What makes the search from the rows that an earlier process has left."""
    trials = TRIALS if arguments.trials is None else arguments.trials
    if arguments.search == "optuna":
        from accel_cli.analysis.optuna_search import OptunaSearch

        return lambda rows: OptunaSearch(
            parts, trials, seed=arguments.seed, pruner=arguments.pruner, rows=rows, parallel=arguments.parallel != 1
        )
    found = every(parts) if arguments.search == "grid" else drawn(parts, trials, arguments.seed)
    return lambda rows: found


def finish(study: Study, ending: int | None, *, as_json: bool) -> int:
    """Show what came of it; returns the exit code."""
    content = study.content
    rows: list[dict[str, Any]] = content["points"]
    page = write_report([study.folder], study.folder / "report.html")
    if as_json:
        print(json.dumps({**content, "run": str(study.folder)}))
    else:
        print(table(rows))
        if content["status"] != "completed":
            left = sum(row["status"] not in ENDED for row in rows)
            print(f"{count(left, 'point')} not ended; this goes on: {content['command']}", file=sys.stderr)
        print(f"sweep   {shorter(study.folder)}\npage    {shorter(page)}", file=sys.stderr)
    if ending is not None:
        return FORWARDED.get(ending, INTERRUPTED)  # type: ignore[call-overload, no-any-return]
    if content["status"] != "completed":
        return SAVED_RUN_AGAIN
    refused = [row["exit_code"] for row in rows if row["status"] == "refused"]
    return max(refused) if len(refused) == len(rows) else 0
