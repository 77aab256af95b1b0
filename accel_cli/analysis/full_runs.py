"""Whole runs over seeds, each done once and kept: what a setting does to the metric, and to the time to a target."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.study import Study
from accel_cli.analysis.whole_runs import whole_runs
from accel_cli.config.plan import Plan
from accel_cli.launch.crew import Crew

ENDED_WELL = ("completed", "target_reached", "stopped_early")


@dataclass(frozen=True)
class Full:
    """What one whole run came to; ``cause`` says why it came to nothing."""

    run: str
    cause: str = ""
    metrics: dict[str, float] | None = None
    """Of the last evaluation on the validation split."""
    own_metric: str = ""
    """The task's, and whether more of it is better."""
    more: bool = True
    seconds_to_target: float | None = None
    train_seconds: float = 0.0
    wall_seconds: float = 0.0
    steps: int = 0


class FullRuns:
    def __init__(self, crew: Crew, study: Study, say: Callable[[str], None]) -> None:
        self.crew, self.study, self.say = crew, study, say
        with study.change() as content:
            content.setdefault("full_runs", {})

    def take(self, name: str, seed: int, planned: Plan) -> Full:
        """Train the settings of this name with this seed to the end, unless that was done. Raises Interrupted."""
        key = f"{name} seed {seed}"
        if key in self.study.content["full_runs"]:
            return Full(**self.study.content["full_runs"][key])
        folder = self._folder(key)
        whole_runs(self.crew, {(name, seed): planned}, lambda *_: folder, lambda *_: self.say(f"whole run: {key}"))
        found = _read(folder, self.study.folder)
        with self.study.change() as content:
            content["full_runs"][key] = found.__dict__
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # nobody goes on with it
        return found

    def _folder(self, key: str) -> Path:
        """Numbered, and the same for the same run of a tune that goes on."""
        with self.study.change() as content:
            places = content.setdefault("places", {})
            place = places.setdefault(key, len(places))
        return self.study.folder / "runs" / f"{place:03d}"


def _read(folder: Path, study: Path) -> Full:
    run = RunFolder(folder)
    summary, where = run.summary, str(folder.relative_to(study))
    if summary["status"] not in ENDED_WELL:
        error = summary["error"]
        return Full(
            where, f"{error['type']}: {error['message']}" if error["message"] else f"ended: {summary['status']}"
        )
    validations = [r for r in run.evaluations if any(key.startswith("validation_") for key in r)]
    last: dict[str, Any] = validations[-1] if validations else {}
    return Full(
        where,
        metrics={key: value for key, value in last.items() if key.startswith("validation_") and value is not None},
        own_metric=f"validation_{summary['metric']['name']}",
        more=summary["metric"]["mode"] != "min",
        seconds_to_target=summary["time_to_target_seconds"],
        train_seconds=summary["train_seconds"] or 0.0,
        wall_seconds=summary["wall_seconds"] or 0.0,
        steps=summary["steps"],
    )
