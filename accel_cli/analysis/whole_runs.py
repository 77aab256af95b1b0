"""Whole runs of several settings over several seeds, one after another; what is done is not done again."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from accel_cli.analysis.probes import Interrupted
from accel_cli.config.plan import Plan
from accel_cli.engine.folder import in_use
from accel_cli.launch.begin import describe
from accel_cli.launch.crew import Crew

DONE = ("completed", "target_reached", "stopped_early", "failed", "diverged")


def whole_runs(
    crew: Crew,
    runs: Mapping[tuple[str, int], Plan],
    folder: Callable[[str, int], Path],
    say: Callable[[str, int], None] = lambda name, seed: None,
) -> None:
    """Train each of ``runs``, by name and seed, in ``folder(name, seed)``, where its summary.json then lies.

    Of each seed all settings take their turn, in random order. What an earlier call ended is left as it is; what it
    left unfinished goes on from its checkpoint. Raises Interrupted.
    """
    for seed in dict.fromkeys(seed for _, seed in runs):
        names = [name for name, other in runs if other == seed]
        for name in random.Random(seed).sample(names, len(names)):
            say(name, seed)
            _whole(crew, runs[name, seed], folder(name, seed))


def _whole(crew: Crew, planned: Plan, folder: Path) -> None:
    path = folder / "summary.json"
    if path.exists() and json.loads(path.read_text())["status"] in DONE:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with in_use(folder):
        resumes = any((folder / "checkpoints").glob("step-*"))
        if not resumes:
            describe(folder, planned, ["train", "--run", str(folder / "run.yaml")])
        crew.train(folder, planned, started=time.time(), resume=resumes)
    if crew.ending is not None:
        raise Interrupted
