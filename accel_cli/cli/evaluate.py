"""accel evaluate: the metrics of a run's checkpoint on a split."""

from __future__ import annotations

import argparse
import json
import time

from accel_cli.cli.resume import run_folder
from accel_cli.cli.train import show_failure
from accel_cli.config.plan import reread
from accel_cli.launch.front import Front
from accel_cli.launch.terminal import view


def main(arguments: argparse.Namespace) -> int:
    front = Front()
    try:
        folder = run_folder(arguments.run)
        planned = reread(folder, arguments.plugin)
        request = {
            "folder": str(folder),
            "mode": "evaluate",
            "plugins": planned.plugins,
            "started": time.time(),
            "split": arguments.split,
            "which": arguments.which,
        }
        outcome = front.run(folder, request, planned.run.launch.processes, planned.run.to_tree(), view(arguments.json))
    finally:
        front.close()
    if outcome.failure is not None:
        show_failure(folder, outcome)
        return outcome.exit_code
    found = outcome.results[0]
    if arguments.json:
        print(json.dumps(found))
    else:
        print(
            f"step {found['step']}   " + "   ".join(f"{name} {value:.4f}" for name, value in found["metrics"].items())
        )
    return 0
