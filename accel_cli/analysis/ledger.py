"""What each technique buys on the user's own run: probes until every verdict is settled, then whole runs over seeds."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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
        refused = self.techniques.refused.get(row.arm) or self.techniques.refused.get(row.against)
        return {
            "technique": row.technique,
            "words": self.techniques.words.get(row.arm, []),
            "form": row.form,
            "arm": row.arm,
            "against": row.against,
            "status": "refused" if refused else "measured",
            "cause": refused or "",
            "ratio": None,
            "verdict": CANNOT_TELL,
            "settled": False,
            "step_milliseconds": None,
            "samples_per_second": None,
            "peak_memory_bytes": None,
            "communication_bytes": None,
            "one_off_seconds": None,
            "break_even_step": None,
            "unequal": self.techniques.unequal.get(row.arm, []),
            "metric": None,
            "seconds_to_target": None,
            "run_seconds": None,
            "runs": [],
        }

    def _open(self) -> list[dict[str, Any]]:
        return [row for row in self.study.content["rows"] if row["status"] == "measured" and not row["settled"]]

    def _judge(self) -> None:
        """Bring the rows up to what the samples say. A verdict, once settled, stays: nobody looks any further."""
        looks = self.stage.looks
        floor = interval(self._ratios(AGAIN, None), self.error)
        with self.study.change() as content:
            content["looks"] = {name: {"cause": look.cause, "facts": look.facts} for name, look in looks.items()}
            content["samples"] = self.samples
            content["floor"] = floor.to_dict()
            content["baseline"].update(self._facts(BASELINE))
            for row in self._open():
                if cause := looks[row["arm"]].cause or looks[row["against"]].cause:
                    row.update(status="failed", cause=cause)
                    continue
                ratio = interval(self._ratios(row["arm"], row["against"]), self.error)
                said = verdict(ratio, floor, self.margin)
                row.update(
                    self._facts(row["arm"]), ratio=ratio.to_dict(), verdict=said, settled=said != CANNOT_TELL,
                    break_even_step=self._break_even(row),
                )  # fmt: skip

    def _ratios(self, arm: str, against: str | None) -> list[float]:
        """Of times per sample, round by round. The baseline counts by the mean of its two places in a round."""
        per_sample = {name: [] if values is None else values for name, values in self.samples.items()}
        rounds = len(per_sample.get(BASELINE, []))
        found = []
        for number in range(rounds):
            base, again = per_sample[BASELINE][number], per_sample[AGAIN][number]
            if arm == AGAIN:
                found.append(again / base)  # type: ignore[operator]
                continue
            own = per_sample[arm][number]
            other = math.sqrt(base * again) if against == BASELINE else per_sample[str(against)][number]  # type: ignore[operator]
            if own is not None and other is not None:
                found.append(own / self._batch(arm) / (other / self._batch(str(against))))
        return found

    def _batch(self, arm: str) -> int:
        return int(self.stage.looks[arm].facts["global_batch"])

    def _facts(self, arm: str) -> dict[str, Any]:
        look = self.stage.looks[arm]
        seconds = [value for value in self.samples.get(arm, []) if value is not None]
        step = statistics.median(seconds) if seconds else None
        return {
            "step_milliseconds": None if step is None else round(1e3 * step, 4),
            "samples_per_second": None if step is None else round(self._batch(arm) / step, 2),
            "global_batch": self._batch(arm),
            "peak_memory_bytes": look.facts["peak_memory_bytes"],
            "communication_bytes": look.facts["communication_bytes"],
            "one_off_seconds": look.one_off_seconds,
        }

    def _break_even(self, row: dict[str, Any]) -> int | None:
        """After how many steps what is paid once has come in again; None where it never does, or nothing is paid."""
        mine, base = self._facts(row["arm"]), self._facts(row["against"])
        if mine["step_milliseconds"] is None or base["step_milliseconds"] is None:
            return None
        paid = sum(mine["one_off_seconds"].values()) - sum(base["one_off_seconds"].values())
        saved = (base["step_milliseconds"] - mine["step_milliseconds"]) / 1e3
        return math.ceil(paid / saved) if paid > 0.1 and saved > 0 else None


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
    difference = student([a - b for a, b in zip(values, others, strict=True) if a is not None and b is not None])
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
    found = student(logs) if len(logs) == len(own) else None
    ratio = None if found is None else Interval(*(math.exp(value) for value in found))
    return {"values": list(own), "ratio": None if ratio is None else ratio.to_dict()}
