"""What each technique buys on the user's own run: probes until every verdict is settled, then whole runs over seeds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from accel_cli.analysis.ledger_row import break_even, facts, unmeasured
from accel_cli.analysis.probes import AGAIN, Look, Stage
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.statistics import CANNOT_TELL, Interval, interval, student, verdict
from accel_cli.analysis.study import Study
from accel_cli.analysis.techniques import BASELINE, Row, Techniques
from accel_cli.analysis.whole_runs import whole_runs
from accel_cli.analysis.wording import is_finite
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.crew import Crew
from accel_cli.stopping.base import mode_of


class View(Protocol):
    """What is shown meanwhile."""

    def looking(self, arm: str) -> None: ...
    def rounds(self, content: dict[str, Any]) -> None: ...
    def running(self, arm: str, seed: int) -> None: ...


@dataclass(frozen=True)
class Target:
    """A value of a validation metric, by the name that it has in records: ``validation_accuracy``."""

    metric: str
    value: float

    def seconds(self, run: RunFolder) -> float | None:
        """Spent in steps until an evaluation first found it; None where none did. Raises ConfigError."""
        best = max if mode_of(self.metric) == "max" else min
        records = [record for record in run.evaluations if is_finite(record.get(self.metric))]
        if not records and run.evaluations:
            known = ", ".join(run.evaluation_metrics)
            raise ConfigError(Problem(f"--to-target {self.metric}", "no such metric in the runs", f"there are {known}"))
        for record in records:
            if best(record[self.metric], self.value) == record[self.metric]:
                return float(record["seconds"])
        return None


class Ledger:
    """One ledger in its study: ``probe`` until settled, ``run_whole`` over seeds; the study's content is the result."""

    def __init__(
        self, study: Study, techniques: Techniques, crew: Crew, view: View, *, margin: float, error: float
    ) -> None:
        self.study, self.techniques, self.crew, self.view = study, techniques, crew, view
        self.margin, self.error = margin, error
        self.stage = Stage(crew, techniques.arms, study.folder / "arms")
        self.samples: dict[str, list[float | None]] = study.content.get("samples", {})
        self.stage.looks = {
            name: Look(**look) for name, look in study.content.get("looks", {}).items() if name in techniques.arms
        }
        with study.change() as content:
            content.update(base=techniques.base, margin=margin, error=error)
            content.setdefault("rounds", 0)
            content.setdefault("probe_seconds", 0.0)
            if "rows" not in content:
                content["rows"] = [self._new(row) for row in techniques.rows]
                content["baseline"] = {}
                content["floor"] = interval([]).to_dict()

    def probe(self, budget_seconds: float) -> str:
        """Rounds until every verdict is settled, or so many seconds are spent, those of earlier calls included.

        Returns ``settled`` or ``budget``. Raises Interrupted, and AccelError where the baseline itself does not run.
        """
        before, began = self.study.content["probe_seconds"], time.monotonic()
        self.stage.look(self.view.looking)
        self._judge()
        while (open_rows := self._open()) and before + time.monotonic() - began < budget_seconds:
            needed = {row["arm"] for row in open_rows} | {row["against"] for row in open_rows}
            found = self.stage.round(sorted(needed))
            for name in (*self.techniques.arms, AGAIN):
                self.samples.setdefault(name, []).append(found.get(name))
            with self.study.change() as content:
                content["rounds"] += 1
                content["probe_seconds"] = round(before + time.monotonic() - began, 3)
            self._judge()
            self.view.rounds(self.study.content)
        return "budget" if self._open() else "settled"

    def run_whole(self, seeds: int, target: Target | None) -> None:
        """Train every arm that runs to its end, once a seed: metric, time, and time to the target."""
        base_seed = self.techniques.arms[BASELINE].run.train.seed
        numbers = range(base_seed, base_seed + seeds)
        arms = [name for name in self.techniques.arms if not self.stage.looks[name].cause]
        place = {name: f"runs/{number:02d}-seed-" for number, name in enumerate(self.techniques.arms)}
        plans = {(name, seed): self.techniques.plan(name, f"train.seed={seed}") for seed in numbers for name in arms}
        whole_runs(self.crew, plans, lambda name, seed: self.study.folder / f"{place[name]}{seed}", self.view.running)
        folders = {name: [f"{place[name]}{seed}" for seed in numbers] for name in arms}
        runs = {name: [RunFolder(self.study.folder / each) for each in folders[name]] for name in arms}
        with self.study.change() as content:
            content["seeds"] = seeds
            content["target"] = None if target is None else {"metric": target.metric, "value": target.value}
            content["baseline"].update(_whole(runs[BASELINE], runs[BASELINE], target), runs=folders[BASELINE])
            for row in content["rows"]:
                if row["arm"] in runs and row["against"] in runs:
                    row.update(_whole(runs[row["arm"]], runs[row["against"]], target), runs=folders[row["arm"]])

    def _new(self, row: Row) -> dict[str, Any]:
        words, unequal = self.techniques.words.get(row.arm, []), self.techniques.unequal.get(row.arm, [])
        new = unmeasured(row.technique, words, row.form, row.against)
        new |= {"arm": row.arm, "settled": False, "unequal": unequal}
        if refused := self.techniques.refused.get(row.arm) or self.techniques.refused.get(row.against):
            new |= {"status": "refused", "cause": refused}
        return new

    def _open(self) -> list[dict[str, Any]]:
        return [row for row in self.study.content["rows"] if row["status"] == "measured" and not row["settled"]]

    def _judge(self) -> None:
        """Bring the rows up to what the samples say. A verdict, once settled, stays: nobody looks any further."""
        looks, samples = self.stage.looks, self.samples
        both = zip(samples.get(BASELINE, []), samples.get(AGAIN, []), strict=True)
        floor = interval([again / base for base, again in both], self.error)  # type: ignore[operator]
        with self.study.change() as content:
            content["looks"] = {name: vars(look) for name, look in looks.items()}
            content["samples"] = samples
            content["floor"] = floor.to_dict()
            content["baseline"].update(facts(looks[BASELINE], self._step(BASELINE)))
            for row in self._open():
                arm, against = row["arm"], row["against"]
                if cause := looks[arm].cause or looks[against].cause:
                    row.update(status="failed", cause=cause)
                    continue
                step, other = self._step(arm), self._step(against)
                ratio = interval(self._ratios(arm, against), self.error)
                said = verdict(ratio, floor, self.margin)
                row.update(
                    facts(looks[arm], step), ratio=ratio.to_dict(), verdict=said, settled=said != CANNOT_TELL,
                    break_even_step=break_even(looks[arm], step, looks[against], other),
                )  # fmt: skip

    def _ratios(self, arm: str, against: str) -> list[float]:
        """Of times per sample, of each round that has both."""
        rounds = range(len(self.samples.get(BASELINE, [])))
        pairs = ((self._per_sample(arm, number), self._per_sample(against, number)) for number in rounds)
        return [own / other for own, other in pairs if own is not None and other is not None]

    def _per_sample(self, arm: str, number: int) -> float | None:
        """Seconds in one round; of the baseline, the mean of its two places."""
        seconds = self.samples[arm][number]
        if arm == BASELINE:
            seconds = math.sqrt(seconds * self.samples[AGAIN][number])  # type: ignore[operator]
        return None if seconds is None else seconds / int(self.stage.looks[arm].facts["global_batch"])

    def _step(self, arm: str) -> float | None:
        """Seconds of a step, by all rounds."""
        return statistics.median(found) if (found := [s for s in self.samples.get(arm, []) if s is not None]) else None


def _whole(own: Sequence[RunFolder], other: Sequence[RunFolder], target: Target | None) -> dict[str, Any]:
    """What whole runs of one setting say beside those of another, seed by seed."""
    times = [[run.summary["train_seconds"] for run in runs] for runs in (own, other)]
    reached = [[target.seconds(run) for run in runs] for runs in (own, other)] if target else None
    return {
        "metric": compare_metric([run.summary for run in own], [run.summary for run in other]),
        "run_seconds": _compare(*times),
        "seconds_to_target": None if reached is None else _compare(*reached),
    }


def compare_metric(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The test metric of one setting's runs, from their summaries, and how it differs from the other's pair by pair."""
    values, others = ([run["metric"]["value"] for run in runs] for runs in (own, other))
    pairs = [a - b for a, b in zip(values, others, strict=True) if a is not None and b is not None]
    difference = student(pairs) if len(pairs) > 1 else None
    return {
        "name": own[0]["metric"]["name"],
        "mode": own[0]["metric"]["mode"],
        "values": values,
        "difference": None if difference is None else {k: round(v, 6) for k, v in difference._asdict().items()},
        "beyond_noise": difference is not None and not difference.low <= 0 <= difference.high,
    }


def _compare(own: Sequence[float | None], other: Sequence[float | None]) -> dict[str, Any]:
    """Values of a fixed number of seeds, and the ratio of their geometric means with its 99% interval."""
    logs = [math.log(a / b) for a, b in zip(own, other, strict=True) if a and b]
    found = student(logs) if len(logs) == len(own) > 1 else None
    ratio = None if found is None else Interval(*(math.exp(value) for value in found))
    return {"values": list(own), "ratio": None if ratio is None else ratio.to_dict()}
