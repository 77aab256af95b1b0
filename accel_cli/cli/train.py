"""accel train: compose, check, launch, train; ends with a summary and the override most worth trying next."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_cli.cli.main import STARTED
from accel_cli.engine.folder import in_use
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.front import Front, Outcome
from accel_cli.launch.terminal import view


def main(arguments: argparse.Namespace) -> int:
    starts = not (arguments.dry_run or arguments.cfg or arguments.inline or arguments.multirun)
    front = Front() if starts else None
    try:
        return _train(arguments, front)
    finally:
        if front is not None:
            front.close()


def _train(arguments: argparse.Namespace, front: Front | None) -> int:
    from accel_cli.cli import resume
    from accel_cli.cli.check import base
    from accel_cli.cli.show import tree_text
    from accel_cli.config.plan import plan
    from accel_cli.launch.begin import claim_folder, describe, launch, line, node

    existing = arguments.run_dir / "run.yaml" if arguments.run_dir else None
    if existing is not None and existing.exists() and not arguments.cfg:
        if arguments.resume:
            return resume.resume(arguments.run_dir, arguments, front)
        if arguments.multirun:
            raise holds_a_run(arguments.run_dir)
    if arguments.multirun:
        from accel_cli.cli import sweep

        return sweep.multirun(arguments)
    planned = plan(
        arguments.overrides, config_dirs=arguments.config_dir, plugins=arguments.plugin, base=base(arguments.run)
    )
    if arguments.cfg:
        print(tree_text(planned.composed.tree))
        return 0
    place = node(planned.run)
    folder = claim_folder(planned, arguments.run_dir)
    with in_use(folder, place.address if place else "") as alone:
        if not (folder / "run.yaml").exists():
            describe(folder, planned, arguments.words)
        elif place is None or (alone and not arguments.dry_run):
            raise holds_a_run(folder)
        if not arguments.json:
            say(planned)
        if arguments.dry_run:
            print(line(folder, planned))
            return 0
        if arguments.inline:
            from accel_cli.worker import Request, work_alone

            return work_alone(Request(folder=str(folder), plugins=planned.plugins, started=STARTED))
        assert front is not None
        outcome = launch(front, folder, planned, view(arguments.json), started=STARTED)
        return finish(folder, outcome, planned.plugins, arguments)


def holds_a_run(folder: Path) -> ConfigError:
    from accel_cli.cli import resume

    fix = f"add --resume to go on, or another --run-dir; accel report {shorter(folder)}"
    return ConfigError(Problem(f"--run-dir {shorter(folder)}", f"holds a run ({resume.state(folder)})", fix))


def say(planned: Any) -> None:
    """What was decided and why, and what is allowed but unwise; on standard error."""
    for decision in planned.decisions:
        print(f"{decision.key}={decision.value}   ({decision.why})", file=sys.stderr)
    for warning in planned.warnings:
        print(f"warning: {warning}", file=sys.stderr)


def finish(folder: Path, outcome: Outcome, plugins: Sequence[str], arguments: argparse.Namespace) -> int:
    """Add the advice to the summary, show the end of the run, and return its exit code."""
    import yaml

    from accel_cli.analysis import exports
    from accel_cli.analysis.advice import advise
    from accel_cli.analysis.allowed import allowed
    from accel_cli.analysis.summary_panel import panel, panel_text
    from accel_cli.config.machine import detect
    from accel_cli.engine import summary

    failure = outcome.failure
    if failure is not None:
        show_failure(folder, outcome, arguments.traceback)
    path = folder / "summary.json"
    if not (outcome.leads and path.exists()):
        if failure is None and not arguments.json:
            print("this node is done; rank 0's node has the summary and the checkpoints", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"exit_code": outcome.exit_code, "run": str(folder)}))
        return outcome.exit_code
    found = json.loads(path.read_text())
    settings = yaml.safe_load((folder / "run.yaml").read_text())
    found["advice"] = advise(found, settings, detect().to_dict(), allowed(folder, plugins))
    summary.write_json(path, found)
    shown, exported = shorter(folder), outcome.export
    reports = exported.results if exported is not None else []
    if arguments.json:
        print(json.dumps({**found, "run": str(folder), **({"export": reports[0]} if reports else {})}))
    elif failure is None:
        said = [exports.line({**report, "folder": shorter(Path(report["folder"]))}) for report in reports]
        if sys.stderr.isatty():
            from rich.console import Console

            Console(stderr=True).print(panel(found, settings, run=shown, exported=said))
        else:
            print(panel_text(found, settings, run=shown, exported=said), file=sys.stderr)
    if exported is not None and exported.failure is not None:
        show_failure(folder, exported, arguments.traceback)
        return exported.exit_code
    return outcome.exit_code


def shorter(folder: Path) -> str:
    return str(folder.relative_to(Path.cwd())) if folder.is_relative_to(Path.cwd()) else str(folder)


def show_failure(folder: Path, outcome: Outcome, traceback: bool = False) -> None:
    """At most a dozen lines: what happened, where, what to try, where the rest is; a traceback if asked for."""
    from accel_cli.errors import format_problems

    failure = outcome.failure
    assert failure is not None
    if traceback and failure.traceback:
        print(failure.traceback, file=sys.stderr)
    if failure.problems:
        print(f"accel: {format_problems(Problem(**p) for p in failure.problems)}", file=sys.stderr)
        return
    who = "accel:" if failure.rank is None else f"accel: rank {failure.rank}"
    when = f" at step {failure.step}" if failure.step is not None else ""
    named = failure.spoke and failure.rank is not None
    what = f": {failure.type}: {failure.message}" if named else f" {failure.message}"
    print(f"{who}{when}{what}", file=sys.stderr)
    if failure.place:
        print(f"  at      {failure.place}", file=sys.stderr)
    if failure.fix:
        print(f"  {failure.fix}", file=sys.stderr)
    if failure.log and Path(failure.log).exists():
        print(f"  output  {shorter(Path(failure.log))}", file=sys.stderr)
    if any((folder / "checkpoints").glob("step-*")):
        print(f"  resume  accel resume {shorter(folder)}", file=sys.stderr)
