"""Advice from what a run measured of itself once it was over: what a step would take under another setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accel_cli.analysis.expected import Pace, ratio
from accel_cli.analysis.facts import Facts, finite
from accel_cli.analysis.wording import duration, number, share, size

CLEAR_GAIN = 0.9
"""An override that leaves more than this of the time is not worth naming, and comes after what saves more."""
FINDINGS = {
    "data": "the model waits for data",
    "optimizer": "the optimizer takes much of each step",
    "batch": "the batch is so small that steps consist of fixed costs; a larger one is another optimisation problem, "
    "so watch the metric",
    "communication": "processes wait for the link between them",
}
OTHERWISE = {
    "optimizer=adamw": ", with AdamW in its place, which is another optimisation problem: watch the metric",
    "communication=powersgd": "; it loses a little of each gradient: watch the metric",
}
"""What has to be said of an override beside its gain."""
ANOTHER_PROBLEM = 0.5
"""What changes the optimisation problem comes first only where it saves twice as much."""
BEATS = ("evaluate.every", "checkpoint.every")


@dataclass(frozen=True)
class Advice:
    """One piece of advice; ``rank`` is the share of the time that it is thought to save."""

    finding: str
    evidence: str
    override: str
    expected: float | None
    rank: float

    @property
    def order(self) -> tuple[bool, float]:
        """What was measured to help clearly comes first."""
        return self.expected is None or self.expected > CLEAR_GAIN, -self.rank


def advice(facts: Facts) -> Iterator[Advice]:
    """From the rows of ``what_if`` in summary.json; those that help, and pay for themselves within the run."""
    for row in facts.what_ifs:
        pace, part = facts.pace, row["part"]
        if pace is None or part not in FINDINGS:
            continue
        own, other, once = finite(row["own"]), finite(row["other"]), finite(row.get("once"))
        after = _larger(facts, pace, row) if part == "batch" else pace.saving(own, other)
        expected = ratio(pace, after)
        saved = (pace.per_sample - after.per_sample) * pace.batch
        if expected > CLEAR_GAIN or once > saved * facts.steps:
            continue
        # A larger batch also spreads what comes every so many steps: that is not what it is named for.
        saves = (own - other / row["times"]) / pace.seconds if part == "batch" else 1 - expected
        rank = saves * ANOTHER_PROBLEM if part == "batch" else saves
        evidence = _evidence(facts, row) + OTHERWISE.get(row["override"], "")
        if once:
            evidence += f"; to read the set once takes {duration(once)}, earned back after {once / saved:.0f} steps"
        yield Advice(FINDINGS[part], evidence, row["override"], round(expected, 4), rank)


def _larger(facts: Facts, pace: Pace, row: dict[str, Any]) -> Pace:
    """Forward and backward are measured; the optimizer takes what it took, data by the sample unless it is gathered."""
    times, data = int(row["times"]), facts.share("data") * pace.seconds
    step = pace.step - finite(row["own"]) + finite(row["other"]) + (0 if row.get("gathered") else (times - 1) * data)
    return pace.larger(times, step, beats={key for key in BEATS if facts.setting(key) == "epoch"})


def _evidence(facts: Facts, row: dict[str, Any]) -> str:
    part, own, other = row["part"], duration(row["own"]), duration(row["other"])
    if part == "batch":
        size_now = number(facts.summary.get("global_batch"))
        return f"forward and backward of {size_now} samples take {own}, of {row['times']} times as many {other}"
    taken = f"{share(facts.share(part))} of the time went to {part}"
    if part == "data":
        return f"{taken}: a step takes {own}, reading a sample {duration(row['read'])}; so it would take {other}"
    if part == "communication":
        less = f"{size(row['other_bytes'])} in the place of {size(row['bytes'])}"
        return f"{taken}: {own} a step, the link carries {size(row['rate'])}/s; {less} would take {other}"
    return f"{taken}: {own} a step; it would be {other}"
