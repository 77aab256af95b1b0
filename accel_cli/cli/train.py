"""accel train: compose, check, launch, train; ends with a summary and the override most worth trying next."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_cli.cli.main import STARTED
from accel_cli.engine.folder import claim, claim_exactly, in_use
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.front import Front, Outcome
from accel_cli.launch.here import Here, here
from accel_cli.launch.local import torchrun_line
from accel_cli.launch.terminal import view

_SECRET = re.compile(r"(?i)((?:token|secret|password|api_?key|credential)[\w.]*=)\S+")


def main(arguments: argparse.Namespace) -> int:
    starts = not (arguments.dry_run or arguments.cfg or arguments.inline or arguments.multirun)
    front = Front() if starts else None
    try:
        return _train(arguments, front)
    finally:
        if front is not None:
            front.close()


def _train(arguments: argparse.Namespace, front: Front | None) -> int:
    from accel_cli.cli import multirun, resume
    from accel_cli.cli.check import base
    from accel_cli.cli.plan import plan
    from accel_cli.cli.show import tree_text

    existing = arguments.run_dir / "run.yaml" if arguments.run_dir else None
    if existing is not None and existing.exists() and not arguments.cfg:
        if arguments.resume:
            return resume.resume(arguments.run_dir, arguments, front)
        if arguments.multirun:
            raise holds_a_run(arguments.run_dir)
    if arguments.multirun:
        return multirun.main(arguments)
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
            print(torchrun_line(folder / "run.yaml", planned.run, planned.plugins))
            return 0
        if arguments.inline:
            from accel_cli.worker import Request, work_alone

            return work_alone(Request(folder=str(folder), plugins=planned.plugins, started=STARTED))
        assert front is not None
        outcome = launch(front, folder, planned, json=arguments.json)
        return finish(folder, outcome, json_output=arguments.json, traceback=arguments.traceback)


def node(run: Any) -> Here | None:
    """This machine among the nodes of a run; None for a run of one machine. Raises ConfigError."""
    return here(run.launch.rendezvous, run.launch.interface) if run.launch.most_nodes > 1 else None


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


def open_folder(planned: Any, run_dir: Path | None, words: Sequence[str]) -> Path:
    """Claim the run folder and write what is known before the first step."""
    folder = claim_folder(planned, run_dir)
    describe(folder, planned, words)
    return folder


def claim_folder(planned: Any, run_dir: Path | None) -> Path:
    run = planned.run
    return (
        claim_exactly(run_dir) if run_dir else claim(Path("runs"), f"{run.data.option}-{run.model.option}")
    ).resolve()


def describe(folder: Path, planned: Any, words: Sequence[str]) -> None:
    """Write what is known before the first step. On a shared disk the first of the nodes does it for all."""
    from accel_cli.cli.environment import environment
    from accel_cli.config import run as run_file
    from accel_cli.engine import summary

    run_file.write(planned.run, folder / "run.yaml")
    line = _SECRET.sub(r"\1***", shlex.join(["accel", *words]))
    (folder / "command.txt").write_text(line + "\n")
    summary.write_json(folder / "environment.json", environment())
    summary.write_json(folder / "decisions.json", [decision.to_dict() for decision in planned.decisions])


def launch(
    front: Front,
    folder: Path,
    planned: Any,
    *,
    started: float | None = None,
    resume: bool = False,
    json: bool = False,
) -> Outcome:
    """Train in ranks of the front's agent, then export where the run says so.

    ``started`` is the Unix time that wall_seconds counts from.
    """
    request = {
        "folder": str(folder),
        "mode": "train",
        "resume": resume,
        "plugins": planned.plugins,
        "started": started or STARTED,
    }
    run = planned.run
    outcome = front.run(folder, request, run.launch.processes, run.to_tree(), view(json), node(run))
    if outcome.leads and outcome.failure is None and outcome.exit_code == 0 and run.export.option != "none":
        request = {"folder": str(folder), "mode": "export", "plugins": planned.plugins, "started": time.time()}
        outcome.export = front.run(folder, request, 1, run.to_tree(), view(json))
    return outcome


def finish(folder: Path, outcome: Outcome, *, json_output: bool, traceback: bool = False) -> int:
    """Add the advice to the summary, show the end of the run, and return its exit code."""
    import yaml

    from accel_cli.analysis import exports
    from accel_cli.analysis.advice import advise
    from accel_cli.analysis.summary_panel import panel, panel_text
    from accel_cli.config.machine import detect
    from accel_cli.engine import summary

    failure = outcome.failure
    if failure is not None:
        show_failure(folder, outcome, traceback)
    path = folder / "summary.json"
    if not (outcome.leads and path.exists()):
        if failure is None and not json_output:
            print("this node is done; rank 0's node has the summary and the checkpoints", file=sys.stderr)
        if json_output:
            print(json.dumps({"exit_code": outcome.exit_code, "run": str(folder)}))
        return outcome.exit_code
    found = json.loads(path.read_text())
    settings = yaml.safe_load((folder / "run.yaml").read_text())
    found["advice"] = advise(found, settings, detect().to_dict())
    summary.write_json(path, found)
    shown, exported = shorter(folder), outcome.export
    reports = exported.results if exported is not None else []
    if json_output:
        print(json.dumps({**found, "run": str(folder), **({"export": reports[0]} if reports else {})}))
    elif failure is None:
        said = [exports.line({**report, "folder": shorter(Path(report["folder"]))}) for report in reports]
        if sys.stderr.isatty():
            from rich.console import Console

            Console(stderr=True).print(panel(found, settings, run=shown, exported=said))
        else:
            print(panel_text(found, settings, run=shown, exported=said), file=sys.stderr)
    if exported is not None and exported.failure is not None:
        show_failure(folder, exported, traceback)
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
