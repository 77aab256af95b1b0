"""The beginning of a run: its folder, what is written there before the first step, and its ranks."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accel_cli.config import run as run_file
from accel_cli.config.parts import implementation
from accel_cli.config.plan import Plan
from accel_cli.engine import summary
from accel_cli.engine.folder import claim, claim_exactly
from accel_cli.launch.environment import environment
from accel_cli.launch.front import Front, Outcome, View
from accel_cli.launch.here import Here, here
from accel_cli.launch.local import torchrun_line
from accel_cli.launch.slurm_script import script

_SECRET = re.compile(r"(?i)((?:token|secret|password|api_?key|credential)[\w.]*=)\S+")


def node(run: Any) -> Here | None:
    """This machine among the nodes of a run; None for a run of one machine. Raises ConfigError."""
    meets = run.launch.option == "local" and run.launch.most_nodes > 1
    return here(run.launch.rendezvous, run.launch.interface) if meets else None


def open_folder(planned: Plan, run_dir: Path | None, words: Sequence[str]) -> Path:
    """Claim the run folder and write what is known before the first step."""
    folder = claim_folder(planned, run_dir)
    describe(folder, planned, words)
    return folder


def claim_folder(planned: Plan, run_dir: Path | None) -> Path:
    run = planned.run
    return (
        claim_exactly(run_dir) if run_dir else claim(Path("runs"), f"{run.data.option}-{run.model.option}")
    ).resolve()


def command_line(words: Sequence[str]) -> str:
    """What was typed, without its secrets."""
    return _SECRET.sub(r"\1***", shlex.join(["accel", *words]))


def describe(folder: Path, planned: Plan, words: Sequence[str]) -> None:
    """Write what is known before the first step. On a shared disk the first of the nodes does it for all."""
    run_file.write(planned.run, folder / "run.yaml")
    (folder / "command.txt").write_text(command_line(words) + "\n")
    summary.write_json(folder / "environment.json", environment())
    summary.write_json(folder / "decisions.json", [decision.to_dict() for decision in planned.decisions])


def launch(front: Front, folder: Path, planned: Plan, view: View, *, started: float, resume: bool = False) -> Outcome:
    """Train where the run's launch option says, then export where the run says so.

    ``started`` is the Unix time that wall_seconds counts from.
    """
    begins = implementation("launch", planned.run.launch)
    outcome: Outcome = begins(front, folder, planned, view, started=started, resume=resume)
    return outcome


def line(folder: Path, planned: Plan) -> str:
    """What --dry-run prints: the command, or the batch script, that does the same without accel's launcher."""
    if planned.run.launch.option == "slurm":
        return script(folder, planned.run, planned.plugins).rstrip("\n")
    return torchrun_line(folder / "run.yaml", planned.run, planned.plugins)


def local(front: Front, folder: Path, planned: Plan, view: View, *, started: float, resume: bool = False) -> Outcome:
    """Train in ranks of the front's agent, on this machine or as one of several that are told to meet."""
    request = {
        "folder": str(folder),
        "mode": "train",
        "resume": resume,
        "plugins": planned.plugins,
        "started": started,
    }
    run = planned.run
    outcome = front.run(folder, request, run.launch.processes, run.to_tree(), view, node(run))
    if outcome.leads and outcome.failure is None and outcome.exit_code == 0 and run.export.option != "none":
        request = {"folder": str(folder), "mode": "export", "plugins": planned.plugins, "started": time.time()}
        outcome.export = front.run(folder, request, 1, run.to_tree(), view)
    return outcome
