"""Steps of many settings, timed once and kept in the study's file: whoever goes on reads what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from accel_cli.analysis.probes import AGAIN, Look, Stage
from accel_cli.analysis.statistics import ERROR, Interval, interval
from accel_cli.analysis.study import Study
from accel_cli.analysis.techniques import BASELINE
from accel_cli.config.decide import decided_in, settled_before
from accel_cli.config.plan import Plan
from accel_cli.launch.crew import Crew


class Measured:
    """Looks and rounds of every stage that a study has had."""

    def __init__(self, crew: Crew, study: Study, say: Callable[[str], None]) -> None:
        self.crew, self.study, self.say = crew, study, say
        with study.change() as content:
            for key in ("looks", "stages", "decided"):
                content.setdefault(key, {})
        self.looks = {name: Look(**told) for name, told in study.content["looks"].items()}
        self._stages: dict[str, Stage] = {}
        self._compiled: set[str] = set()

    def look(self, arms: Mapping[str, Plan], stage: str) -> None:
        """Start each of these arms once, where that was not done yet; the first is the baseline."""
        self._compiled |= {name for name, arm in arms.items() if arm.run.compile.option != "none"}
        on_stage = self._stage(arms, stage)

        def say(name: str) -> None:
            self._keep(on_stage.looks)
            self.say(f"first look at {name}")

        on_stage.look(say)
        self._keep(on_stage.looks)

    def rounds(
        self,
        arms: Mapping[str, Plan],
        stage: str,
        count: int,
        names: Collection[str],
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take rounds of this stage until it has had ``count`` of them; only these arms are in those still to take.

        Where that is ``enough`` before, one round has to do.
        """
        while len(taken := self.taken(stage)) < count and not (taken and enough()):
            on_stage = self._stage(arms, stage)
            self.say(f"{stage}: round {len(taken) + 1} of {count}, {len(names)} settings")
            found = on_stage.round([BASELINE, *names])
            self._keep({name: look for name, look in on_stage.looks.items() if look.cause}, {stage: found})

    def taken(self, stage: str) -> list[dict[str, float]]:
        found: list[dict[str, float]] = self.study.content["stages"].get(stage, [])
        return found

    def ratios(self, stage: str, arm: str, against: str = BASELINE) -> list[float]:
        """Seconds of one arm over those of another, a round each; of the baseline both its places count."""
        found = []
        for taken in self.taken(stage):
            both = {**taken, BASELINE: math.sqrt(taken[BASELINE] * taken[AGAIN])}
            if arm in both and against in both:
                found.append(both[arm] / both[against])
        return found

    def ratio(self, stage: str, arm: str, against: str = BASELINE, error: float = ERROR) -> Interval:
        return interval(self.ratios(stage, arm, against), error)

    def floor(self, stage: str, error: float = ERROR) -> Interval:
        """The baseline against itself."""
        return interval([taken[AGAIN] / taken[BASELINE] for taken in self.taken(stage)], error)

    def step_seconds(self, stage: str, arm: str) -> float | None:
        found = [taken[arm] for taken in self.taken(stage) if arm in taken]
        return statistics.median(found) if found else None

    def peak(self, arm: str) -> int:
        """Bytes at the first look: of the device's memory, of the host's where it has none of its own."""
        peaks = self.looks[arm].facts["peak_memory_bytes"]
        return int(peaks["device"] or peaks["host"])

    def compile_seconds(self, arm: str) -> float:
        """At the first look; 0 where nothing is compiled: what else a first step takes is no matter of settings."""
        return self.looks[arm].one_off_seconds["compile"] if arm in self._compiled else 0.0

    def runs(self, names: Sequence[str]) -> list[str]:
        """Those of them that have not failed."""
        return [name for name in names if not self.looks[name].cause]

    def _stage(self, arms: Mapping[str, Plan], stage: str) -> Stage:
        if stage not in self._stages:
            found = Stage(self.crew, {n: self._pinned(n, arm) for n, arm in arms.items()}, self.study.folder / stage)
            found.looks = {name: self.looks[name] for name in arms if name in self.looks}
            self._stages[stage] = found
        return self._stages[stage]

    def _pinned(self, name: str, planned: Plan) -> Plan:
        """With what its ranks decided at the first look: an arm stays itself."""
        decided = self.study.content["decided"].get(name, {})
        return replace(planned, run=settled_before(planned.run, decided))

    def _keep(self, looks: Mapping[str, Look], taken: Mapping[str, dict[str, float]] | None = None) -> None:
        with self.study.change() as content:
            for name, look in looks.items():
                content["looks"][name] = vars(look)
            for stage, found in (taken or {}).items():
                content["stages"].setdefault(stage, []).append({k: float(f"{v:.6g}") for k, v in found.items()})
            for on_stage in self._stages.values():
                for place, name in enumerate(on_stage.arms):
                    if decided := decided_in(on_stage.folder / f"{place:02d}"):
                        content["decided"].setdefault(name, decided)
        self.looks.update(looks)


def told(ratio: Interval) -> dict[str, Any] | None:
    """For a row: None where nothing was measured."""
    return None if math.isnan(ratio.value) else ratio.to_dict()
