"""accel check: the doors of validation, and nothing else."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from accel_cli.config.plan import Plan, plan


def main(arguments: argparse.Namespace) -> int:
    planned = plan(
        arguments.overrides, config_dirs=arguments.config_dir, plugins=arguments.plugin, base=base(arguments.run)
    )
    code = deep(planned) if arguments.deep else 0
    if arguments.json:
        decisions = [d.to_dict() for d in planned.decisions]
        print(json.dumps({"exit_code": code, "decisions": decisions, "warnings": planned.warnings}))
    elif code == 0:
        for warning in planned.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        run = planned.run
        print(
            f"this runs: {run.launch.processes} x {run.hardware.option}, {run.strategy.option}, "
            f"{run.precision.option}, global batch {run.train.global_batch}"
        )
    return code


def base(run: Path | None) -> Path | None:
    return run / "run.yaml" if run is not None and run.is_dir() else run


def deep(planned: Plan) -> int:
    """Build the model on the meta device and read the data, in a rank's process, in a folder that is thrown away."""
    from accel_cli.cli.train import show_failure
    from accel_cli.config import run as run_file
    from accel_cli.launch.front import Front
    from accel_cli.launch.terminal import view

    front = Front()
    try:
        with tempfile.TemporaryDirectory(prefix="accel-check-") as name:
            folder = Path(name)
            run_file.write(planned.run, folder / "run.yaml")
            request = {"folder": name, "mode": "check", "plugins": planned.plugins, "started": time.time()}
            outcome = front.run(folder, request, 1, planned.run.to_tree(), view())
            if outcome.failure is not None:
                show_failure(folder, outcome)
            return outcome.exit_code
    finally:
        front.close()
