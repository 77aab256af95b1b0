"""Tune: the fastest settings that fit and keep the metric; searched by probes, confirmed by whole runs over seeds."""

from __future__ import annotations

import math
import shlex
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from accel_cli.analysis import purchases
from accel_cli.analysis.confirm import Confirmation, Finalist
from accel_cli.analysis.full_runs import Full, FullRuns
from accel_cli.analysis.levers import LEVERS, Candidate, candidates
from accel_cli.analysis.measured import Measured, told
from accel_cli.analysis.metric_floor import Floor, usual
from accel_cli.analysis.study import Study
from accel_cli.analysis.techniques import over
from accel_cli.analysis.tune_search import Scale, Search, Set, named
from accel_cli.analysis.tuned_recipe import write_recipe
from accel_cli.config.decide import decided_in
from accel_cli.config.plan import Plan, plan
from accel_cli.errors import AccelError, ConfigError, Problem
from accel_cli.launch.crew import Crew

OBJECTIVES = ("throughput", "time_to_target", "memory")
LEAST_SEARCH = 0.4
"""The share of the budget that is the search's, however long whole runs take."""
FOR_PURCHASES = 0.2
"""The share that is kept for telling what each chosen setting buys."""


@dataclass(frozen=True)
class Request:
    """What was asked for. ``axes``: key -> words to try instead of the table's, the first one the baseline's."""

    words: Sequence[str]
    objective: str
    floor: Floor | None | Literal["auto"]
    """auto: a usual one, of the run's own metric; None: the metric does not count."""
    axes: Mapping[str, Sequence[str]]
    budget_seconds: float
    seeds: int
    slowdown: float
    """For memory: the longest time of a step over the baseline's, less 1."""
    plugins: Sequence[str] = ()
    config_dirs: Sequence[Path] = ()
    base: Path | None = None

    def plan(self, *changes: str) -> Plan:
        """The run with these words laid over it. Raises ConfigError."""
        return plan(self.laid_over(changes), config_dirs=self.config_dirs, plugins=self.plugins, base=self.base)

    def laid_over(self, changes: Iterable[str]) -> list[str]:
        return over(self.words, list(changes))

    def command(self, words: Sequence[str]) -> str:
        """The line that trains with these words."""
        flags = [f"--plugin={name}" for name in self.plugins]
        flags += [f"--config-dir={folder}" for folder in self.config_dirs]
        flags += [f"--run={self.base.parent}"] if self.base else []
        return shlex.join(["accel", "train", *words, *flags])


class Tune:
    """One tune in its study; what was measured by an earlier process is read, and the rest follows the same course."""

    def __init__(self, study: Study, request: Request, crew: Crew, say: Callable[[str], None]) -> None:
        self.study, self.request, self._told = study, request, say
        self.measured = Measured(crew, study, self.say)
        self.runs = FullRuns(crew, study, self.say)
        self.base = request.plan()
        self._spent, self._began = study.content.get("spent_seconds", 0.0), time.monotonic()
        with study.change() as content:
            content.update(objective=request.objective, budget_seconds=request.budget_seconds)
            content.update(floor=None, candidates=[], finalists=[], chosen=None, bought=[])

    def run(self) -> str:
        """Search, confirm, say what each setting buys. Returns ``completed``, or ``budget`` where that was spent.

        Raises Interrupted, and AccelError where the run as it stands cannot be trained.
        """
        first = self._full((), 0)
        floor = self._floor(first)
        chosen, stage = self._search(first)
        with self.study.change() as content:
            content.setdefault("search_seconds", round(self.request.budget_seconds - self.left, 3))
        seeds = self.request.seeds
        confirmation = Confirmation(self.request.objective, floor, seeds, self._full, lambda: self.left <= 0)
        finalists = confirmation.judge(self._finalists(chosen, stage))
        winner = next((finalist for finalist in finalists if finalist.wins), None)
        spent = confirmation.cut_short or self.left <= 0
        with self.study.change() as content:
            content["finalists"] = [finalist.to_dict() for finalist in finalists]
            content.setdefault("confirmed_seconds", round(self.request.budget_seconds - self.left, 3))
        for candidate in chosen if winner is None else set(chosen) - set(winner.chosen):
            self._note(candidate, "finalist", next((f.cause for f in finalists if f.cause), ""))
        self._conclude(winner)
        self._keep_time()
        return "budget" if spent else "completed"

    def say(self, text: str) -> None:
        """Something is about to be measured."""
        self._keep_time()
        self._told(text)

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.request.budget_seconds - self._spent - (time.monotonic() - self._began)

    def _search(self, first: Full) -> tuple[Set, str]:
        runs = 3 * self.request.seeds - 1  # the first finalist may fall out
        whole = first.wall_seconds * runs
        share = 1 - LEAST_SEARCH - FOR_PURCHASES
        reserve = min(whole, share * self.request.budget_seconds) + FOR_PURCHASES * self.request.budget_seconds
        if whole > share * self.request.budget_seconds:
            minutes = whole / share / 60
            self.say(f"{runs} whole runs do not fit: --budget {math.ceil(minutes)} would do")
        found = candidates(
            self.base,
            lambda words: self.request.plan(*words),
            memory=self.request.objective == "memory",
            axes=self.request.axes,
            decided=decided_in(self.study.folder / first.run),
        )
        tried = []
        for candidate in found:
            self._row(candidate)
            if candidate.cause:
                self._note(candidate, "refused", candidate.cause)
            else:
                tried.append(candidate)
        seconds = max(first.train_seconds, 1e-3)
        scale = Scale(self.measured, self.request.objective == "memory", seconds, 1 + self.request.slowdown)
        search = Search(
            self.measured, scale, self.base, lambda chosen: self.request.plan(*self._changes(chosen)), self._note,
            lambda: self._keep_time() < reserve,
        )  # fmt: skip
        alone = search.alone(tried)
        for place in tried:
            self._tell(place, "alone")
        chosen, stage = search.together(alone)
        for candidate in chosen:
            self._note(candidate, "finalist", "")
        return chosen, stage

    def _finalists(self, chosen: Set, stage: str) -> list[Finalist]:
        """The best set, then what is left of it without the settings that may change the metric."""
        if not chosen:
            return []
        doubted = [c for c in chosen if not c.is_exact] or [c for c in chosen if c.lever in ("compile", "strategy")]
        without = [tuple(c for c in chosen if c is not left) for left in doubted]

        def seconds(others: Set) -> float:
            ratios = self.measured.ratios(stage, named(others))
            return statistics.median(ratios) if ratios else math.inf

        sets = [chosen, *sorted(without, key=seconds), tuple(c for c in chosen if c not in doubted)]
        distinct = {named(each): each for each in sets if each}
        return [Finalist(name, each) for name, each in distinct.items()]

    def _conclude(self, winner: Finalist | None) -> None:
        """The recipe, the line, and what each chosen setting bought."""
        chosen = winner.chosen if winner is not None else ()
        changes = self._changes(chosen)
        words = self.request.laid_over(changes)
        ratio, rows = None, []
        if chosen:
            found = purchases.measure(
                self.measured, self.base, chosen, lambda c: self.request.plan(*self._changes(c)),
                lambda: self.left <= 0, self._changes,
            )  # fmt: skip
            ratio, rows = found.ratio, found.rows
        for candidate in chosen:
            self._note(candidate, "chosen", "")
        with self.study.change() as content:
            content["floor_ratio"] = told(self.measured.floor("bought")) if chosen else None
            content["bought"] = rows
            content["chosen"] = {
                "words": list(changes),
                "ratio": ratio,
                "metric": winner.metric if winner is not None else None,
                "peak_memory_bytes": self.measured.looks[named(chosen)].facts.get("peak_memory_bytes"),
                "command": self.request.command(words),
                "recipe": None,
            }
            if chosen:
                content["chosen"]["recipe"] = "tuned.yaml"
                write_recipe(self.study.folder / "tuned.yaml", self.request.plan(*changes), content)

    def _floor(self, first: Full) -> Floor | None:
        """Of the metric as the first whole run has it. Raises ConfigError where it has no such metric."""
        if first.cause:
            raise AccelError(f"the run as it stands fails: {first.cause}", "accel train shows more of it")
        known = first.metrics or {}
        request = self.request
        if request.objective == "time_to_target" and first.seconds_to_target is None:
            stopping = self.base.run.stopping
            why = f"the run as it stands does not reach it in its {first.steps} steps"
            raise ConfigError(Problem(f"stopping.target={stopping.target:g}", why, "lower it, or train longer"))
        if request.floor is None or (request.floor == "auto" and request.objective == "time_to_target"):
            return None
        if request.floor == "auto":
            floor = usual(first.own_metric, first.more, known)
            if floor is None:
                return None
        else:
            floor = request.floor.found_in(known)
        with self.study.change() as content:
            content["floor"] = {"metric": floor.metric, "loss_allowed": floor.loss_allowed}
        return floor

    def _full(self, chosen: Set, index: int) -> Full:
        return self.runs.take(named(chosen), self._seed(index), self._seeded(chosen, index))

    def _seed(self, index: int) -> int:
        return int(self.base.run.train.seed) + index

    def _seeded(self, chosen: Set, index: int) -> Plan:
        return self.request.plan(*self._changes(chosen), f"train.seed={self._seed(index)}")

    @staticmethod
    def _changes(chosen: Iterable[Candidate]) -> list[str]:
        """The words of a set, in the order of the table."""
        order = [lever.key for lever in LEVERS]
        ordered = sorted(chosen, key=lambda c: order.index(c.lever) if c.lever in order else len(order))
        return [word for candidate in ordered for word in candidate.words]

    def _row(self, candidate: Candidate) -> None:
        with self.study.change() as content:
            content["candidates"].append(
                {
                    "name": candidate.name,
                    "words": list(candidate.words),
                    "stage": 0,
                    "status": "measured",
                    "cause": "",
                    "ratio": None,
                    "step_milliseconds": None,
                    "peak_memory_bytes": None,
                    "metric": None,
                }
            )

    def _note(self, candidate: Candidate, status: str, cause: str) -> None:
        with self.study.change() as content:
            for row in content["candidates"]:
                if row["name"] == candidate.name:
                    row.update(status=status, cause=cause)

    def _tell(self, candidate: Candidate, stage: str) -> None:
        """Into the candidate's row what was measured of it."""
        ratios = self.measured.ratios(stage, candidate.name)
        step, look = self.measured.step_seconds(stage, candidate.name), self.measured.looks[candidate.name]
        with self.study.change() as content:
            for row in content["candidates"]:
                if row["name"] == candidate.name:
                    row["stage"] = len(ratios)
                    row["ratio"] = told(self.measured.ratio(stage, candidate.name))
                    row["step_milliseconds"] = None if step is None else round(1e3 * step, 4)
                    row["peak_memory_bytes"] = look.facts.get("peak_memory_bytes")

    def _keep_time(self) -> float:
        """Write down what was spent; returns what is left."""
        with self.study.change() as content:
            content["spent_seconds"] = round(self.request.budget_seconds - self.left, 3)
        return self.left
