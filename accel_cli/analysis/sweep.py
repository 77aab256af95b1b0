"""A sweep: points that become runs, each in a folder of its own, each ending exactly once."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from accel_cli.analysis import point
from accel_cli.analysis.advice import advise
from accel_cli.analysis.judge import Metric
from accel_cli.analysis.point import ENDED, FAILED
from accel_cli.analysis.search import Point, Row, Search
from accel_cli.analysis.study import Study
from accel_cli.analysis.watched import Watched
from accel_cli.config.axes import Parts, axes_of, words
from accel_cli.config.machine import detect
from accel_cli.config.plan import Plan, plan, reread
from accel_cli.engine.folder import claim_exactly, in_use
from accel_cli.engine.summary import write_json
from accel_cli.errors import AccelError, ConfigError, Problem
from accel_cli.launch.begin import describe
from accel_cli.launch.crew import Crew


class Watch(Protocol):
    """Who shows how a sweep goes on; called from several threads."""

    def begins(self, row: Row) -> None: ...
    def event(self, row: Row, event: str, values: dict[str, Any]) -> None: ...
    def ended(self, row: Row) -> None: ...


@dataclass(frozen=True)
class How:
    """How the points are run; what they are, the command line's words say."""

    parallel: int | None = 1
    """Points beside each other; None: as many as cores or devices allow."""
    seconds: float | None = None
    """Most that a point may take."""
    config_dirs: Sequence[Path] = ()
    plugins: Sequence[str] = ()
    base: Path | None = None
    metric: Metric | None = None
    """What the points are judged by; None: the run's own."""


def begin(study: Study, overrides: Sequence[str], parts: Parts, search: str, points: Sequence[Point]) -> None:
    """Note what the sweep is, and a row for each point that is known already."""
    with study.change() as content:
        content.setdefault("words", list(overrides))
        content.setdefault("axes", {axis.key: list(axis.values) or [axis.typed] for axis in axes_of(parts)})
        content.setdefault("search", search)
        content.setdefault("metric", None)
        known = axes_of(parts)
        content.setdefault("points", [point.row(number, known, values) for number, values in enumerate(points)])


def forget_failures(study: Study) -> None:
    """Let points that failed, were refused or ran out of time or memory be tried once more."""
    with study.change() as content:
        for row in content["points"]:
            if row["status"] in FAILED:
                row.update(status="waiting", cause=None, exit_code=None, seconds=0.0, reported=[])
                point.clear(study.folder / point.name(row))


class Ready(NamedTuple):
    row: Row
    planned: Plan
    resume: bool


class Sweep:
    """``run`` goes on with every row of ``study`` that has not ended, and with those that ``search`` proposes."""

    def __init__(self, study: Study, parts: Parts, search: Search, how: How, watch: Watch) -> None:
        self.study, self.parts, self.search, self.how, self.watch = study, parts, search, how, watch
        self.rows: list[Row] = study.content["points"]
        self._places: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.parallel = 1
        self._broken = False

    def run(self) -> int | None:
        """Returns the number of the signal that ended it early, or None."""
        with Crew() as crew:
            self.crew = crew
            ready = self._ready()
            upcoming = next(ready, None)
            if upcoming is not None:
                self.parallel = self._parallel(upcoming.planned)
                self._run(upcoming, ready)
            ending = crew.ending
        whole = all(row["status"] in ENDED for row in self.rows)
        self.study.end("completed" if ending is None and whole else "interrupted")
        return ending

    def _run(self, upcoming: Ready | None, ready: Iterator[Ready]) -> None:
        self.crew.wait_until_warm()
        self._free = threading.Semaphore(self.parallel - 1 + self.search.ahead)
        for place in range(self.parallel):
            self._places.put(place)
        with ThreadPoolExecutor(self.parallel) as pool:
            started: list[Future[None]] = []
            while upcoming is not None and self.crew.ending is None and not self._broken:
                started.append(pool.submit(self._work, upcoming))
                self._free.acquire()
                upcoming = next(ready, None) if self.crew.ending is None else None
        for future in started:
            future.result()

    def _ready(self) -> Iterator[Ready]:
        """Rows that can be run, planned; those that cannot, or have been, end here."""
        number = 0
        while (row := self._row(number)) is not None:
            number += 1
            if row["status"] in ENDED:
                continue
            self.search.begins(row)
            try:
                found = self._begun(row)
            except ConfigError as error:
                self._end(row, point.refused(error))
            except AccelError as error:
                self._end(row, {"status": "failed", "exit_code": error.exit_code, "cause": error.message})
            else:
                if found is not None:
                    yield found

    def _row(self, number: int) -> Row | None:
        if number < len(self.rows):
            return self.rows[number]
        values = self.search.propose(self.rows)
        if values is None:
            return None
        with self.study.change():
            self.rows.append(point.row(number, axes_of(self.parts), values))
        return self.rows[number]

    def _begun(self, row: Row) -> Ready | None:
        """Plan a point, or take up what an earlier process has left of it. None where it had ended already."""
        folder = self._folder(row)
        if (folder / "run.yaml").exists():
            if found := point.recorded(folder, self.how.metric):
                self._end(row, found)
                return None
            if point.has_checkpoint(folder):
                return Ready(row, reread(folder, list(self.how.plugins)), resume=True)
        line = words(self.parts, row["values"])
        planned = plan(line, config_dirs=self.how.config_dirs, plugins=self.how.plugins, base=self.how.base)
        point.clear(folder)
        return Ready(row, planned, resume=False)

    def _work(self, ready: Ready) -> None:
        place = self._places.get()
        try:
            if self.crew.ending is None:
                self._point(ready, place)
        except BaseException:
            self._broken = True
            raise
        finally:
            self._places.put(place)
            self._free.release()

    def _point(self, ready: Ready, place: int) -> None:
        row, folder, began = ready.row, self._folder(ready.row), time.monotonic()
        spent = point.seconds_spent(row, folder)
        with self.study.change():
            row.update(status="running", run=folder.name)
        self.watch.begins(row)
        try:
            found = self._train(ready, folder, place, spent)
        except AccelError as error:
            found = {"status": "failed", "exit_code": error.exit_code, "cause": error.message}
        self._end(row, {**found, "seconds": round(spent + time.monotonic() - began, 3)})

    def _train(self, ready: Ready, folder: Path, place: int, spent: float) -> dict[str, Any]:
        """The one place where a run is started: past this machine, its launch part takes it from here."""
        row, planned = ready.row, ready.planned
        watched = Watched(
            self.how.metric,
            judge=lambda step, value, mode: self._reported(row, step, value, mode),
            show=lambda event, values: self.watch.event(row, event, values),
            is_ending=lambda: self.crew.ending is not None,
        )
        started = time.time()
        if not ready.resume:
            planned = self._divided(planned)
            describe(claim_exactly(folder), planned, ["train", *words(self.parts, row["values"]), *self._code()])
        with in_use(folder):
            ended = self.crew.train(
                folder, planned, watched, started=started, resume=ready.resume, end=watched.end,
                seconds=None if self.how.seconds is None else max(1.0, self.how.seconds - spent),
                environment=self._devices(planned, place),
            )  # fmt: skip
        summary = point.read_summary(folder)
        if summary and ended.outcome.failure is None:
            summary["advice"] = advise(summary, planned.run.to_tree(), detect().to_dict())
            write_json(folder / "summary.json", summary)
        return point.found(
            folder, summary, ended.outcome, pruned=watched.pruned, limit=None if ended.in_time else self.how.seconds,
            metric=self.how.metric,
        )  # fmt: skip

    def _reported(self, row: Row, step: int, value: float, mode: str) -> bool:
        """A resumed run repeats what it had told after its checkpoint: it is no news."""
        if any(step <= earlier for earlier, _ in row["reported"]):
            return False
        with self.study.change():
            row["reported"].append([step, value])
            row["mode"] = mode
        return self.search.reported(row)

    def _end(self, row: Row, found: dict[str, Any]) -> None:
        with self.study.change():
            row.update(found)
            if row["metric"] and row["metric"]["name"]:
                self.study.content["metric"] = {key: row["metric"][key] for key in ("name", "mode")}
        self.search.ended(row)
        self.watch.ended(row)

    def _folder(self, row: Row) -> Path:
        return self.study.folder / point.name(row)

    def _code(self) -> list[str]:
        """The words that let a point's own command line find what the sweep's has found."""
        dirs = [word for folder in self.how.config_dirs for word in ("--config-dir", str(folder))]
        base = ["--run", str(self.how.base)] if self.how.base else []
        return [*dirs, *base, *(word for name in self.how.plugins for word in ("--plugin", name))]

    def _parallel(self, planned: Plan) -> int:
        run, machine = planned.run, detect()
        device, processes = run.hardware.option, run.launch.processes
        if device not in ("cpu", "cuda"):
            if (self.how.parallel or 1) > 1:
                why = f"only cores and CUDA devices are shared out among points, and these train on {device}"
                raise ConfigError(Problem(f"--parallel {self.how.parallel}", why, "try --parallel 1"))
            return 1
        if self.how.parallel is not None:
            return self.how.parallel
        whole = machine.cores if device == "cpu" else machine.count(device)
        return max(1, whole // (processes * (run.hardware.threads if device == "cpu" else 1)))

    def _divided(self, planned: Plan) -> Plan:
        """Threads that nobody has counted are shared out among the points beside each other."""
        decisions = planned.decisions
        counted = next((d for d in decisions if d.key == "hardware.threads"), None)
        if counted is None or self.parallel == 1:
            return planned
        threads = max(1, planned.run.hardware.threads // self.parallel)
        mine = replace(counted, value=threads, why=f"{counted.why}, and {self.parallel} points beside each other")
        run = planned.run.with_values("hardware", threads=threads)
        return replace(planned, run=run, decisions=[mine if d is counted else d for d in decisions])

    def _devices(self, planned: Plan, place: int) -> dict[str, str]:
        """What a point may see of the GPUs: its own, or where there are fewer, all in turn."""
        if planned.run.hardware.option != "cuda" or self.parallel == 1:
            return {}
        there = detect().count("cuda")
        seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(there)))
        names, processes = seen.split(","), planned.run.launch.processes
        first = place * processes
        return {"CUDA_VISIBLE_DEVICES": ",".join(names[(first + i) % len(names)] for i in range(processes))}
