"""The search of tune: each setting alone, dropping early what is slower; then together, while one near is better."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from accel_cli.analysis.levers import Candidate
from accel_cli.analysis.measured import Measured
from accel_cli.analysis.statistics import MARGIN
from accel_cli.analysis.techniques import BASELINE
from accel_cli.config.plan import Plan
from accel_cli.errors import ConfigError

RUNGS = ((1, 1.25), (3, 1.08), (5, 1.03))
"""Rounds that an arm has had, and from which ratio on it is dropped then; of a lever's values half go each time."""
CLEAR = 0.9
"""Below this ratio, and without a rival of its lever, a setting is in the set: more rounds would tell nothing new."""
FIRST, MORE = 2, 5
"""Rounds of a neighbourhood: of all, and of those that are as good as the middle by then."""
NEAR = 1.05
"""Values that are this close to no change, or to the best of their lever, may yet pay in company."""
MOST_NEAR = 4
MOST_PASSES = 5

Set = tuple[Candidate, ...]


def named(chosen: Iterable[Candidate]) -> str:
    return " ".join(candidate.name for candidate in chosen) or BASELINE


@dataclass
class Scale:
    """What is made small, of an arm against the baseline: time or memory."""

    measured: Measured
    memory: bool
    run_seconds: float
    """Of the steps of the baseline's whole run, against which compiling counts."""
    most: float
    """For memory: the ratio of times from which on an arm is too slow."""

    def of(self, stage: str, arm: str) -> float:
        """Infinite where it was not measured, or is too slow."""
        ratios = self.measured.ratios(stage, arm)
        if not ratios and arm != BASELINE:
            return math.inf
        time = (statistics.median(ratios) if ratios else 1.0) + self.compiling(arm)
        if not self.memory:
            return time
        return self.measured.peak(arm) / self.measured.peak(BASELINE) if time <= self.most else math.inf

    def compiling(self, arm: str) -> float:
        """The share of the baseline's whole time that compiling this arm takes beyond compiling the baseline."""
        beyond = self.measured.compile_seconds(arm) - self.measured.compile_seconds(BASELINE)
        return max(0.0, beyond) / self.run_seconds


@dataclass
class Search:
    """``plan_of`` plans the run with candidates laid over it, and raises ConfigError. ``enough`` says when to end."""

    measured: Measured
    scale: Scale
    base: Plan
    plan_of: Callable[[Iterable[Candidate]], Plan]
    note: Callable[[Candidate, str, str], None]
    """Is told of a candidate how far it came, and why no further."""
    enough: Callable[[], bool]

    def alone(self, candidates: Sequence[Candidate]) -> dict[Candidate, float]:
        """What each of them, alone, makes of the baseline; in order, the best first. Those dropped are not in it."""
        arms = {BASELINE: self.base} | {c.name: c.plan for c in candidates if c.plan is not None}
        self.measured.look(arms, "alone")
        looks = self.measured.looks
        alive = []
        for candidate in candidates:
            look = looks[candidate.name]
            if look.cause:
                self.note(candidate, "failed", look.cause)
            elif not self.scale.memory and (share := self.scale.compiling(candidate.name)) > 1:
                self.note(candidate, "dropped", f"compiling takes {share:.1f} times as long as the whole run")
            else:
                alive.append(candidate)
        for rung, (count, limit) in enumerate(RUNGS):
            unclear = [c for c in alive if rung == 0 or self._is_unclear(c, alive)]
            if not unclear or (rung and self.enough()):
                break
            self.measured.rounds(arms, "alone", count, [c.name for c in unclear], self.enough)
            alive = self._kept([c for c in alive if not self._failed(c)], limit)
        return dict(sorted(((c, self.scale.of("alone", c.name)) for c in alive), key=lambda pair: pair[1]))

    def together(self, alone: dict[Candidate, float]) -> tuple[Set, str]:
        """The best set that was found, and the stage on which it and its neighbours were measured."""
        current: Set = ()
        for candidate, value in alone.items():
            if value < 1 - MARGIN and all(candidate.lever != other.lever for other in current):
                current = self._joined(current, candidate) or current
        stage = "alone"
        for turn in range(MOST_PASSES if current else 0):
            stage, before = f"together-{turn + 1}", current
            current = self._better(current, alone, stage)
            if current == before or self.enough():
                break
        return current, stage

    def _kept(self, alive: list[Candidate], limit: float) -> list[Candidate]:
        """Those within the limit, and of each lever the better half."""
        values = {c: self.scale.of("alone", c.name) for c in alive}
        kept = []
        for candidate, value in values.items():
            rivals = sorted(v for c, v in values.items() if c.lever == candidate.lever)
            if value > limit:
                self.note(candidate, "dropped", "it saves nothing" if self.scale.memory else "slower than the baseline")
            elif value > rivals[(len(rivals) - 1) // 2]:
                self.note(candidate, "dropped", f"others of {candidate.lever} are better")
            else:
                kept.append(candidate)
        return kept

    def _is_unclear(self, candidate: Candidate, alive: Sequence[Candidate]) -> bool:
        rivals = [c for c in alive if c.lever == candidate.lever and c is not candidate]
        return bool(rivals) or self.scale.of("alone", candidate.name) > CLEAR

    def _failed(self, candidate: Candidate) -> bool:
        if cause := self.measured.looks[candidate.name].cause:
            self.note(candidate, "failed", cause)
        return bool(cause)

    def _joined(self, current: Set, candidate: Candidate) -> Set | None:
        """The set with one more, in the place of what it had of the same lever; None where the doors refuse that."""
        joined = (*(c for c in current if c.lever != candidate.lever), candidate)
        try:
            self.plan_of(joined)
        except ConfigError as error:
            self.note(candidate, "measured", f"not with {named(current)}: {error.problems[0].why}")
            return None
        return joined

    def _better(self, current: Set, alone: dict[Candidate, float], stage: str) -> Set:
        """The best of a set and its neighbours; of those as good, the one with fewer settings."""
        less = [tuple(c for c in current if c is not left) for left in current]
        near = [c for c, value in alone.items() if value < NEAR and c not in current][:MOST_NEAR]
        others = [joined for c in near if (joined := self._joined(current, c))]
        sets = {named(chosen): chosen for chosen in [current, *less, *others]}
        arms = {BASELINE: self.base} | {name: self.plan_of(chosen) for name, chosen in sets.items()}
        self.measured.look(arms, stage)
        self.measured.rounds(arms, stage, FIRST, self.measured.runs(list(sets)), self.enough)
        values = {name: self.scale.of(stage, name) for name in sets}
        likely = [name for name in sets if values[name] <= NEAR * values[named(current)]]
        likely = self.measured.runs(list(dict.fromkeys([named(current), *likely])))
        self.measured.rounds(arms, stage, MORE, likely, self.enough)
        values = {name: self.scale.of(stage, name) for name in sets} | {BASELINE: 1.0}
        best = min(sets, key=lambda name: values[name])
        if values[best] < (1 - MARGIN) * values[named(current)]:
            return sets[best]
        if math.isinf(values[best]):  # all of them too slow: without the slowest
            return min(less, key=lambda chosen: max((self._time(c) for c in chosen), default=1.0))
        fewer = min([named(chosen) for chosen in less], key=lambda name: values[name])
        return sets[fewer] if values[fewer] < (1 + MARGIN / 2) * values[named(current)] else current

    def _time(self, candidate: Candidate) -> float:
        return statistics.median(self.measured.ratios("alone", candidate.name))
