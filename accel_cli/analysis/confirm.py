"""The finalists of a tune in whole runs: whether they keep the metric, or reach the target soonest, seed by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accel_cli.analysis.full_runs import Full
from accel_cli.analysis.metric_floor import BROKEN, CANNOT_TELL, KEPT, LEVEL, Floor
from accel_cli.analysis.statistics import MARGIN, Interval, student
from accel_cli.analysis.tune_search import Set


@dataclass
class Finalist:
    name: str
    chosen: Set
    runs: list[Full] = field(default_factory=list)
    metric: dict[str, Any] | None = None
    """Its name, the values of both by seed, their difference and what the floor says to it."""
    seconds_to_target: list[float | None] | None = None
    ratio_to_target: Interval | None = None
    cause: str = ""
    """Why it is out."""
    wins: bool = False

    def to_dict(self) -> dict[str, Any]:
        ratio = self.ratio_to_target
        return {
            "words": [word for candidate in self.chosen for word in candidate.words],
            "seeds": len(self.runs),
            "metric": self.metric,
            "seconds_to_target": self.seconds_to_target,
            "ratio_to_target": None if ratio is None else _json(ratio),
            "cause": self.cause,
            "wins": self.wins,
            "runs": [run.run for run in self.runs],
        }


@dataclass
class Confirmation:
    """``full`` trains a set with the seed of this index; ``spent`` says whether the budget is."""

    objective: str
    floor: Floor | None
    seeds: int
    full: Callable[[Set, int], Full]
    spent: Callable[[], bool]
    cut_short: bool = False

    def judge(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        """Those that were run, one of which wins, or none. The first is the fastest: others follow where it is out."""
        if self.objective == "time_to_target":
            return self._soonest(finalists)
        ran: list[Finalist] = []
        for finalist in finalists:
            ran.append(finalist)
            said = self._keeps(finalist)
            # What computes the same is as good as the baseline until the contrary is shown.
            finalist.wins = said == KEPT or (said == CANNOT_TELL and all(c.is_exact for c in finalist.chosen))
            if finalist.wins or self.cut_short:
                break
        if not any(finalist.wins for finalist in ran):
            for finalist in ran:
                if not finalist.cause:
                    finalist.wins = True
                    break
        return ran

    def _keeps(self, finalist: Finalist) -> str:
        """What the floor says, after the seeds that were asked for; where that cannot be told, after as many more."""
        said = CANNOT_TELL
        for count in (self.seeds, 2 * self.seeds):
            base = self._run(finalist, count)
            if finalist.cause:
                return BROKEN
            said = self._compare(finalist, base)
            if self.cut_short or said != CANNOT_TELL or self.floor is None:
                break
        return said

    def _run(self, finalist: Finalist, count: int) -> list[Full]:
        """Train both with so many seeds, in turns; returns the baseline's runs of the same seeds."""
        base: list[Full] = []
        for index in range(count):
            if index and self.spent() and index >= len(finalist.runs):
                self.cut_short = True
                break
            base.append(self.full((), index))
            if index >= len(finalist.runs):
                finalist.runs.append(self.full(finalist.chosen, index))
            failed = next((run.cause for run in (base[-1], finalist.runs[index]) if run.cause), "")
            if failed:
                finalist.cause = failed
                break
        return base

    def _compare(self, finalist: Finalist, base: Sequence[Full]) -> str:
        """Fill in the finalist's metric, and say what the floor does to it."""
        slower = [mine.train_seconds / its.train_seconds for mine, its in zip(finalist.runs, base, strict=True)]
        if self.objective == "throughput" and min(slower) > 1 + MARGIN:
            finalist.cause = f"its steps are quicker, its whole runs are not: {statistics.median(slower):.2f} the time"
            return BROKEN
        name = self.floor.metric if self.floor else base[0].own_metric
        values, others = ([(run.metrics or {}).get(name, math.nan) for run in runs] for runs in (finalist.runs, base))
        if self.floor is None:
            found, said = student([a - b for a, b in zip(values, others, strict=True)], LEVEL), KEPT
        else:
            found, said = self.floor.judge(values, others)
            if said == BROKEN or (said == CANNOT_TELL and self.floor.is_missed(found)):
                allowed = self.floor.loss_allowed
                finalist.cause = f"changes {name} by {found.value:+.4f}, and {allowed:g} may be lost"
            else:
                finalist.cause = ""
        finalist.metric = {
            "name": name, "values": values, "baseline": others, "difference": _json(found), "floor": said
        }  # fmt: skip
        return said

    def _soonest(self, finalists: Sequence[Finalist]) -> list[Finalist]:
        """All of them to the target, over the seeds that were asked for: the soonest, if sooner than the baseline."""
        ran: list[Finalist] = []
        for finalist in finalists:
            if ran and self.spent():
                self.cut_short = True
                break
            ran.append(finalist)
            base = self._run(finalist, self.seeds)
            if finalist.cause:
                continue
            self._compare(finalist, base)
            finalist.seconds_to_target = [run.seconds_to_target for run in finalist.runs]
            logs = [
                math.log(mine.seconds_to_target / its.seconds_to_target)
                for mine, its in zip(finalist.runs, base, strict=True)
                if mine.seconds_to_target and its.seconds_to_target
            ]
            if len(logs) < len(base):
                reached, before = (sum(run.seconds_to_target is not None for run in r) for r in (finalist.runs, base))
                finalist.cause = f"reaches the target {reached} times, the baseline {before}, of {len(base)}"
                continue
            finalist.ratio_to_target = Interval(
                *(math.exp(value) if value < 700 else math.inf for value in student(logs, LEVEL))
            )
            if finalist.ratio_to_target.value >= 1:
                finalist.cause = "reaches the target no sooner than the baseline"
        able = [finalist for finalist in ran if not finalist.cause and finalist.ratio_to_target is not None]
        if able:
            min(able, key=lambda finalist: finalist.ratio_to_target.value).wins = True  # type: ignore[union-attr]
        return ran


def _json(found: Interval) -> dict[str, float | None]:
    """An end that is not known is None."""
    return {key: round(value, 6) if math.isfinite(value) else None for key, value in found._asdict().items()}
