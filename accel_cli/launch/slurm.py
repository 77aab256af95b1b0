"""launch=slurm: hand the run to Slurm as a batch job, and wait for it as for one of this machine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from accel_cli.config.plan import Plan
from accel_cli.engine import summary
from accel_cli.errors import INTERRUPTED, NO_TIME_TO_SAVE, ConfigError, DivergedError, Problem, ResourceError
from accel_cli.launch import first_failure
from accel_cli.launch.first_failure import Failure
from accel_cli.launch.front import TICK, Front, Outcome, View
from accel_cli.launch.slurm_script import EVENTS, script

SOONEST, LATEST = 1.0, 15.0
"""Seconds between two questions to Slurm's controller, which other users ask too: rarer the longer a job waits."""
PATIENCE = 300.0
"""Seconds that the controller may be silent before the job counts as lost."""
QUIET = {"RUNNING", "COMPLETING"}
"""States of which there is no reason to tell."""
ENDED = {
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED",
}  # fmt: skip
FIXES = {
    "TIMEOUT": "try a longer launch.time or launch.warning; then accel resume",
    "OUT_OF_MEMORY": "try a larger launch.memory, or a smaller train.micro_batch; then accel resume",
}
CODES = {"TIMEOUT": NO_TIME_TO_SAVE, "CANCELLED": NO_TIME_TO_SAVE, "OUT_OF_MEMORY": ResourceError.exit_code}


def submit(front: Front, folder: Path, planned: Plan, view: View, *, started: float, resume: bool = False) -> Outcome:
    """Submit the run, show what its rank 0 tells in the run folder, and return how it ended.

    Raises ConfigError where Slurm does not take the job.
    """
    run, ranks = planned.run, folder / "ranks"
    ranks.mkdir(exist_ok=True)
    for stale in ranks.glob("*.failure.json"):
        stale.unlink()
    batch = folder / "job.sh"
    batch.write_text(script(folder, run, planned.plugins, resume=resume))
    before, told = _stamp(folder / "summary.json"), Told(ranks / EVENTS)
    job = Job.of(batch)
    results: list[dict[str, Any]] = []
    with front.elsewhere():
        try:
            for said in job.states(front):
                if said:
                    view.event("say", {"text": said})
                for event, values in told.events():
                    if event == "result":
                        results.append(values)
                    else:
                        view.event(event, values)
        finally:
            if job.state not in ENDED:
                job.cancel()
    view.close()
    outcome = _outcome(folder, job, front.signals, run.to_tree(), before, started)
    if results and outcome.failure is None:
        outcome.export = Outcome(0, results=results)
    return outcome


class Told:
    """What rank 0 has written to a file since one looked last, events of a JSON line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = path.stat().st_size if path.exists() else 0

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            lines, end, _ = file.read().rpartition(b"\n")
        self.position += len(lines) + len(end)
        for line in lines.splitlines():
            values = json.loads(line)
            yield values.pop("event"), values


class Job:
    """A job of Slurm by its number."""

    def __init__(self, number: str) -> None:
        self.number = number
        self.state = "PENDING"
        self._handled = 0

    @classmethod
    def of(cls, batch: Path) -> Job:
        done = subprocess.run(["sbatch", "--parsable", str(batch)], capture_output=True, text=True)
        found = re.match(r"\d+", done.stdout)
        if done.returncode or found is None:
            lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in done.stderr.splitlines()]
            why = "; ".join(line for line in lines if line) or f"sbatch ended with {done.returncode}"
            raise ConfigError(Problem("launch=slurm", why, "see sinfo for partitions, limits and nodes"))
        return cls(found[0])

    def states(self, front: Front) -> Iterator[str]:
        """What there is to say of the job, or nothing, at every tick until it has ended; signals are handed on."""
        began = answered = time.monotonic()
        due, said = 0.0, ""
        while self.state not in ENDED:
            self._hand_on(front)
            now = time.monotonic()
            if now >= due:
                due = now + min(LATEST, SOONEST + (now - began) / 20)
                state, text = self._ask()
                answered = now if state else answered
                if now - answered > PATIENCE:
                    raise ResourceError(f"Slurm has not told of job {self.number} for {PATIENCE:.0f} s", "see squeue")
                self.state = state or self.state
                yield text if text != said else ""
                said = text or said
            time.sleep(TICK)
            yield ""

    def _ask(self) -> tuple[str, str]:
        """Its state and what to say of it; empty where the controller does not answer."""
        command = ["squeue", "--noheader", "--states=all", f"--jobs={self.number}", "--format=%T|%r|%N"]
        done = subprocess.run(command, capture_output=True, text=True)
        if "Invalid job id" in done.stderr or (done.returncode == 0 and not done.stdout.strip()):
            return "COMPLETED", ""  # forgotten already: the run folder tells how it ended
        if done.returncode:
            return "", ""
        state, reason, nodes = done.stdout.strip().splitlines()[0].split("|")
        why = f" ({reason})" if state not in QUIET and reason not in ("None", "") else ""
        where = f" on {nodes}" if nodes and state in QUIET else ""
        return state, f"slurm job {self.number}: {state.lower()}{where}{why}"

    def _hand_on(self, front: Front) -> None:
        """The first signal asks the ranks to save and end, a second Ctrl-C ends the job; so does any before it runs."""
        if front.killed or front.signals.count(signal.SIGINT) > 1 or (front.signals and self.state == "PENDING"):
            self.cancel()
        elif len(front.signals) > self._handled:
            name = signal.Signals(front.signals[-1]).name.removeprefix("SIG")
            subprocess.run(["scancel", f"--signal={name}", self.number], capture_output=True)
        self._handled = len(front.signals)

    def cancel(self) -> None:
        subprocess.run(["scancel", self.number], capture_output=True)


def _stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def _outcome(
    folder: Path, job: Job, signals: list[int], settings: dict[str, Any], before: int | None, started: float
) -> Outcome:
    """By what the ranks wrote; and where they could not, by how Slurm says that the job ended."""
    path = folder / "summary.json"
    written = json.loads(path.read_text()) if _stamp(path) not in (None, before) else None
    if written is not None and written["status"] != "failed":
        return Outcome(written["exit_code"])
    if any((folder / "ranks").glob("*.failure.json")):
        failure = first_failure.find(folder, [])
    elif signals:
        code = INTERRUPTED if signal.SIGINT in signals else NO_TIME_TO_SAVE
        failure = Failure(None, None, "Signal", "the run was ended before it could save", "", None, code)
    else:
        why = f"job {job.number} ended as {job.state.lower()} before the run was done"
        failure = Failure(None, None, "Exit", why, FIXES.get(job.state, ""), None, CODES.get(job.state, 3))
    failure = replace(failure, log=_log(folder, failure.type))
    if failure.problems is None:  # rank 0 may have written of an echo only
        status = "interrupted" if signals else "diverged" if failure.exit_code == DivergedError.exit_code else "failed"
        made = summary.failed(folder, settings, failure.summary(), failure.exit_code, status)
        summary.write_json(path, {**made, "wall_seconds": round(time.time() - started, 3)})
    return Outcome(failure.exit_code, failure)


def _log(folder: Path, kind: str) -> str | None:
    """The output of the node that tells of such a failure, else of the first that said anything."""
    paths = [*sorted((folder / "ranks").glob("node-*.log")), folder / "job.log"]
    found = {path: path.read_text(errors="replace") for path in paths if path.exists() and path.stat().st_size}
    return next((str(path) for path, text in found.items() if kind in text), str(next(iter(found), "")) or None)
