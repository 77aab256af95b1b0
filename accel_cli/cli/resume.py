"""accel resume: go on with a run from its newest checkpoint that is whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from accel_cli.cli.plan import Plan, own_plugins
from accel_cli.cli.train import finish, launch, shorter
from accel_cli.config import rules
from accel_cli.config import run as run_file
from accel_cli.config.machine import detect
from accel_cli.engine.folder import in_use
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.front import Front

FINISHED = ("completed", "target_reached", "stopped_early")


def main(arguments: argparse.Namespace) -> int:
    front = Front()
    try:
        return resume(arguments.run, arguments, front)
    finally:
        front.close()


def resume(folder: Path, arguments: argparse.Namespace, front: Front | None) -> int:
    folder = run_folder(folder)
    if state(folder) in FINISHED:
        print(f"{shorter(folder)} is already complete ({state(folder)}); nothing to do", file=sys.stderr)
        if arguments.json:
            print(json.dumps({**json.loads((folder / "summary.json").read_text()), "run": str(folder)}))
        return 0
    planned = reread(folder, arguments.plugin)
    assert front is not None
    with in_use(folder):
        outcome = launch(front, folder, planned, resume=True, json=arguments.json)
        return finish(folder, outcome, json_output=arguments.json, traceback=arguments.traceback)


def run_folder(folder: Path) -> Path:
    """The folder of a run, given itself or its run.yaml. Raises ConfigError where there is none."""
    folder = folder.parent if folder.name == "run.yaml" else folder
    if not (folder / "run.yaml").is_file():
        why = "no such folder" if not folder.exists() else "holds no run.yaml"
        raise ConfigError(Problem(str(folder), why, "accel runs list shows the runs here"))
    return folder.resolve()


def reread(folder: Path, plugins: list[str]) -> Plan:
    """The run as its run.yaml says it, before this machine's rules."""
    run = run_file.read(folder / "run.yaml")
    granted = [*plugins, *own_plugins()]
    warnings = rules.judge(rules.Facts(run, detect(), granted))
    return Plan(run, None, [], warnings, granted)  # type: ignore[arg-type]


def state(folder: Path) -> str:
    """How a run stands, in a word."""
    try:
        return str(json.loads((folder / "summary.json").read_text())["status"])
    except (OSError, ValueError, KeyError):
        return "unfinished"
