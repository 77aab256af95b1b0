"""accel resume: go on with a run from its newest checkpoint that is whole."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from accel_cli.analysis.result import Result, kind_of
from accel_cli.cli.main import STARTED
from accel_cli.cli.train import finish, say, shorter
from accel_cli.config import run as run_file
from accel_cli.config.decide import decided_in, settled_before
from accel_cli.config.plan import Plan, plan, reread
from accel_cli.engine import attempts
from accel_cli.engine.folder import in_use
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.begin import launch, node
from accel_cli.launch.front import Front
from accel_cli.launch.terminal import view

MAY_CHANGE = (
    "strategy.", "communication.", "launch.", "hardware.", "loader.", "compile.", "tracking.", "metrics.",
    "checkpoint.", "profile.", "evaluate.batch", "train.micro_batch", "train.blocks", "train.activation_checkpointing",
)  # fmt: skip
"""How a run is run. A checkpoint holds whole tensors, so it goes on under any of it; the rest is what the run is."""
FOLLOW_LAYOUT = (
    "launch.processes", "launch.backend", "hardware.threads", "hardware.affinity", "hardware.memory_format",
)  # fmt: skip
"""What is decided anew with another layout."""
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
    assert front is not None
    planned = laid_out_anew(folder, arguments) if arguments.overrides else reread(folder, arguments.plugin)
    place = node(planned.run)
    with in_use(folder, place.address if place else ""):
        if arguments.overrides:
            keep(folder, planned)
        outcome = launch(front, folder, planned, view(arguments.json), started=STARTED, resume=True)
        return finish(folder, outcome, planned.plugins, arguments)


def laid_out_anew(folder: Path, arguments: argparse.Namespace) -> Plan:
    """The run with overrides that change how it is run, not what it is.

    Raises ConfigError for an override that would make another run of it.
    """
    words = list(arguments.overrides)
    keys = {word.lstrip("+").partition("=")[0] for word in words}
    if keys & {"strategy", "launch.processes"}:
        has = _flat(run_file.read(folder / "run.yaml").to_tree())
        words += [f"{key}=auto" for key in FOLLOW_LAYOUT if key not in keys and key in has]
    planned = plan(words, plugins=arguments.plugin, base=folder / "run.yaml")
    before = settled_before(run_file.read(folder / "run.yaml"), decided_in(folder))
    old, new = _flat(before.to_tree()), _flat(planned.run.to_tree())
    changed = sorted(key for key in {**old, **new} if old.get(key) != new.get(key))
    if foreign := [key for key in changed if not key.startswith(MAY_CHANGE)]:
        why = "a resumed run trains the same model on the same problem"
        fix = f"leave it out, or start a new run: accel train --run {shorter(folder)} {shlex.join(arguments.overrides)}"
        raise ConfigError([Problem(f"{key}={new.get(key)}", why, fix) for key in foreign])
    return planned


def keep(folder: Path, planned: Plan) -> None:
    """Make it the run's run.yaml from here on; what that was before is kept beside the attempts."""
    kept = folder / "attempts" / f"run-{attempts.count(folder)}.yaml"
    kept.parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / "run.yaml", kept)
    run_file.write(planned.run, folder / "run.yaml")
    say(planned)


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return found


def run_folder(folder: Path) -> Path:
    """The folder of a run, given itself or its run.yaml. Raises ConfigError where there is none."""
    folder = folder.parent if folder.name == "run.yaml" else folder
    if not (folder / "run.yaml").is_file():
        if kind := kind_of(folder):
            fix = f"accel runs --folder {folder} lists its runs; its own command: {Result(folder, kind).command}"
            raise ConfigError(Problem(str(folder), f"is a {kind}, not a run", fix))
        why = "no such folder" if not folder.exists() else "holds no run.yaml"
        raise ConfigError(Problem(str(folder), why, "accel runs list shows the runs here"))
    return folder.resolve()


def state(folder: Path) -> str:
    """How a run stands, in a word."""
    try:
        return str(json.loads((folder / "summary.json").read_text())["status"])
    except (OSError, ValueError, KeyError):
        return "unfinished"
