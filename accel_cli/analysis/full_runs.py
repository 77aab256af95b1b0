"""Whole runs over seeds, each done once and kept: what a setting does to the metric, and to the time to a target."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accel_cli.analysis.probes import Interrupted
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.study import Study
from accel_cli.config.plan import Plan
from accel_cli.launch.begin import describe
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

    def take(self, name: str, seed: int, planned: Plan, words: list[str]) -> Full:
        """Train the settings of this name with this seed to the end, unless that was done. Raises Interrupted."""
        key = f"{name} seed {seed}"
        if key in self.study.content["full_runs"]:
            return Full(**self.study.content["full_runs"][key])
        self.say(f"whole run: {key}")
        folder = self._folder(key)
        resume = any((folder / "checkpoints").glob("step-*"))
        if not resume:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            describe(folder, planned, ["train", *words])
        began = time.time()
        ended = self.crew.train(folder, planned, started=began, resume=resume)
        if self.crew.ending is not None:
            raise Interrupted
        failure = ended.outcome.failure
        found = _read(folder, self.study.folder, failure.cause if failure is not None else "")
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


def _read(folder: Path, study: Path, cause: str) -> Full:
    run = RunFolder(folder)
    summary = run.summary
    where = str(folder.relative_to(study))
    if cause or summary["status"] not in ENDED_WELL:
        return Full(where, cause or f"ended as {summary['status']}")
    validations = [r for r in run.evaluations if any(key.startswith("validation_") for key in r)]
    last: dict[str, Any] = validations[-1] if validations else {}
    return Full(
        where,
        metrics={key: value for key, value in last.items() if key.startswith("validation_") and value is not None},
        own_metric=f"validation_{summary['metric']['name']}",
        more=summary["metric"]["mode"] != "min",
        seconds_to_target=summary["time_to_target_seconds"],
        train_seconds=summary["train_seconds"] or 0.0,
        wall_seconds=json.loads((folder / "summary.json").read_text())["wall_seconds"],
        steps=summary["steps"],
    )
