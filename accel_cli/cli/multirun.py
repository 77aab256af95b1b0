"""accel train -m: a run for each point; one that cannot run is a row, not the end."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from accel_cli.cli.train import finish, say, shorter
from accel_cli.config.compose import expand
from accel_cli.config.plan import plan
from accel_cli.engine import summary
from accel_cli.engine.folder import claim, claim_exactly, in_use
from accel_cli.errors import ConfigError
from accel_cli.launch.begin import launch, open_folder
from accel_cli.launch.front import Front
from accel_cli.launch.terminal import view


def main(arguments: argparse.Namespace) -> int:
    """Expand Hydra's sweep grammar and run the points one after another, all forked from one warm agent."""
    points = expand(arguments.overrides, arguments.config_dir)
    shared = set.intersection(*(set(point) for point in points))
    front = Front()
    rows = []
    try:
        parent = claim_exactly(arguments.run_dir) if arguments.run_dir else claim(Path("runs"), "sweep")
        for number, point in enumerate(points):
            if not front.agent.lives:
                front.close()
                front = Front()
            differs = [word for word in point if word not in shared]
            print(f"--- {number + 1} of {len(points)}: {' '.join(differs)}", file=sys.stderr)
            row = _point(front, parent / f"{number:03d}", point, arguments)
            rows.append({"point": differs, **row})
            summary.write_json(parent / "sweep.json", rows)
            if row["exit_code"] in (130, 75):
                break
    finally:
        front.close()
    if arguments.json:
        print(json.dumps({"run": str(parent.resolve()), "points": rows}))
    else:
        print(table(rows), file=sys.stderr)
    return 130 if any(row["exit_code"] == 130 for row in rows) else 0


def _point(front: Front, folder: Path, point: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        planned = plan(point, config_dirs=arguments.config_dir, plugins=arguments.plugin)
    except ConfigError as error:
        print(f"accel: {error}", file=sys.stderr)
        return {"status": "refused", "exit_code": error.exit_code, "why": error.problems[0].why}
    if not arguments.json:
        say(planned)
    folder = open_folder(planned, folder, arguments.words)
    with in_use(folder):
        outcome = launch(front, folder, planned, view(arguments.json), started=time.time())
        code = finish(folder, outcome, json_output=False) if not arguments.json else outcome.exit_code
    found: dict[str, Any] = {"status": "failed", "exit_code": code, "run": shorter(folder)}
    path = folder / "summary.json"
    if path.exists():
        written = json.loads(path.read_text())
        found.update({key: written[key] for key in ("status", "loss", "metric", "train_seconds", "samples_per_second")})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """A line a point: what differs, how it ended, its metric and speed."""
    lines = []
    for row in rows:
        metric = row.get("metric") or {}
        value = metric.get("value")
        shown = f"{metric['name']} {value:.4f}" if value is not None else row.get("why", "")
        rate = row.get("samples_per_second")
        speed = f"{rate:,.0f} samples/s" if rate else ""
        lines.append((" ".join(row["point"]) or "-", row["status"], shown, speed))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)
