"""A run's speed against what it was: both measured beside a reference that tells what the machine itself did."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from accel_cli.analysis.equal_work import unequal
from accel_cli.analysis.probes import AGAIN, Probe, Stage, usual_of
from accel_cli.analysis.statistics import CANNOT_TELL, Interval, interval, log_fortune
from accel_cli.analysis.study import Study
from accel_cli.config import run as run_file
from accel_cli.config.machine import detect, version
from accel_cli.config.plan import Plan
from accel_cli.config.run import Run
from accel_cli.engine.summary import write_json
from accel_cli.errors import ConfigError, Problem
from accel_cli.launch.crew import Crew

RUN, REFERENCE = "run", "reference"
REGRESSION, FASTER, WITHIN = "regression", "faster", "within"
SHARPNESS = 2
"""A baseline is known this many times as sharply as the slowdown looked for: a later run is no better known."""
PARTS = ("products", "copies", "operations", "python")
"""Of the reference: ``accel_cli.engine.reference`` says what they do."""
Samples = dict[str, list[float]]
"""Round by round: seconds a step of the run, of the run ``again``, and of a unit of each part of the reference."""


class Reference(Probe):
    """The reference on stage. ``units`` of it take about as long as a step of the run."""

    mode = "reference"
    units = 1

    def turn(self, steps: int, place: float) -> float:
        count = steps * self.units
        seconds = super().turn(count, place)
        for name, taken in self.answered["parts"].items():
            self.turns.setdefault(name, []).append(taken / count)
        return seconds

    @cached_property
    def turns(self) -> dict[str, list[float]]:
        """Part -> seconds of a unit, by turn."""
        return {}


class Beside(Stage):
    """The run, twice, and the reference, of which a round also tells what a unit of each part took."""

    def __init__(self, crew: Crew, planned: Plan, folder: Path) -> None:
        super().__init__(crew, {RUN: planned, REFERENCE: planned}, folder)
        self._turns: dict[str, list[float]] = {}

    def round(self, names: Sequence[str] | None = None) -> dict[str, float]:
        found = super().round(names)
        if cause := self.looks[REFERENCE].cause:
            raise RuntimeError(f"the reference does not run: {cause}")
        return found | {part: usual_of(turns, self.first_turns) for part, turns in self._turns.items()}

    @contextlib.contextmanager
    def _start(self, name: str) -> Iterator[Probe]:
        if name != REFERENCE:
            with super()._start(name) as probe:
                yield probe
            return
        folder = self.folder / REFERENCE
        reference = Reference(self.crew, self.arms[name], folder, like=folder)
        if REFERENCE in self.looks:
            usual, unit = (self.looks[each].facts["step_seconds"] for each in (RUN, REFERENCE))
            reference.units = max(1, round(usual / unit))
        self._turns = reference.turns
        try:
            yield reference
        finally:
            reference.close()


class Bench:
    """One measurement in its study, whose content holds the samples; ``measure`` adds rounds until they are enough."""

    def __init__(self, study: Study, planned: Plan, crew: Crew) -> None:
        self.study = study
        self.stage = Beside(crew, planned, study.folder / "arms")
        with study.change() as content:
            content.setdefault("samples", {})
            content.setdefault("measuring_seconds", 0.0)

    @property
    def samples(self) -> Samples:
        found: Samples = self.study.content["samples"]
        return found

    def measure(
        self, enough: Callable[[Samples], bool], budget_seconds: float, shown: Callable[[Samples], None], least: int = 0
    ) -> str:
        """Rounds until ``enough`` says so, or so many seconds are spent, those of earlier calls included.

        ``least`` rounds are taken whatever they cost. Returns ``settled`` or ``budget``. Raises Interrupted, and
        AccelError where the run itself does not run.
        """
        before, began = self.study.content["measuring_seconds"], time.monotonic()
        if enough(self.samples):
            return "settled"
        self.stage.look()
        while rounds(self.samples) < least or before + time.monotonic() - began < budget_seconds:
            found = self.stage.round()
            with self.study.change() as content:
                for name in (RUN, AGAIN, *PARTS):
                    content["samples"].setdefault(name, []).append(found[name])
                content["measuring_seconds"] = round(before + time.monotonic() - began, 3)
            shown(self.samples)
            if enough(self.samples):
                return "settled"
        return "budget"


def rounds(samples: Samples) -> int:
    return len(samples.get(RUN, []))


def fewest_rounds(error: float) -> int:
    """With fewer no interval has two ends."""
    return next(count for count in range(1, 1000) if log_fortune(0, count) >= math.log(2 / error))


def beside(samples: Samples, error: float) -> Interval:
    """The time of a step over that of a unit of the whole reference. A round's two places of the run count as one.

    It takes half the ``error``: the measurement that it is compared with has the rest.
    """
    whole = [sum(parts) for parts in zip(*(samples[name] for name in _parts(samples)), strict=True)]
    return interval([a / b for a, b in zip(_run(samples), whole, strict=True)], error / 2)


def floor_of(samples: Samples, error: float) -> Interval:
    """The run against itself."""
    return interval([b / a for a, b in zip(samples.get(RUN, []), samples.get(AGAIN, []), strict=True)], error)


def is_sharp(samples: Samples, error: float, slowdown: float) -> bool:
    """Whether a baseline is known well enough for such a slowdown to be found against it."""
    known = beside(samples, error)
    return known.high <= (1 + slowdown / SHARPNESS) * known.low


def slowdown_of(new: Samples, old: Samples, error: float) -> Interval:
    """How many times as long a step takes as it did, the machine's own change taken out."""
    return beside(new, error).over(beside(old, error))


def verdict(ratio: Interval, floor: Interval, most: float, by_part: Mapping[str, float]) -> str:
    """``regression`` only where the whole interval lies beyond the slowdown allowed, and beyond the floor's.

    ``by_part``: the ratio beside each part of the reference alone. A program that is what it was, of any mixture of
    the parts, has become slower by no more than the part that did most: a regression is one beside each of them.
    """
    if ratio.low > max(1 + most, floor.high):
        return REGRESSION if min(by_part.values()) > 1 + most else CANNOT_TELL
    if ratio.high < min(1 / (1 + most), floor.low):
        return FASTER if max(by_part.values()) < 1 else CANNOT_TELL
    return WITHIN if ratio.high <= 1 + most else CANNOT_TELL


def by_part(new: Samples, old: Samples) -> dict[str, float]:
    """How many times as long a step takes as it did, beside each part of the reference alone; medians, no intervals."""
    if not rounds(new):
        return dict.fromkeys(_parts(old), 1.0)
    run = statistics.median(_run(new)) / statistics.median(_run(old))
    return {name: round(run / drift, 4) for name, drift in machine_drift(new, old).items()}


def machine_drift(new: Samples, old: Samples) -> dict[str, float]:
    """Part of the reference -> how many times as long it takes as when the baseline was made."""
    return {name: round(statistics.median(new[name]) / statistics.median(old[name]), 4) for name in _parts(old)}


def _run(samples: Samples) -> list[float]:
    return [math.sqrt(a * b) for a, b in zip(samples.get(RUN, []), samples.get(AGAIN, []), strict=True)]


def _parts(samples: Samples) -> list[str]:
    return [name for name in samples if name not in (RUN, AGAIN)]


def place() -> dict[str, Any]:
    """What a baseline depends on beside the run: another machine's is no baseline."""
    machine = detect()
    return {
        "cpu": machine.cpu_name,
        "cores": machine.cores,
        "devices": [gpu.name for gpu in machine.gpus],
        "torch": version("torch"),
    }


def save(path: Path, planned: Plan, command: str, samples: Samples) -> None:
    """Write a baseline. Raises ConfigError where that cannot be."""
    made = {"format_version": 1, "kind": "baseline", "made": time.time(), "command": command, "place": place()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {**made, "run": planned.run.to_tree(), "samples": samples})
    except OSError as error:
        raise ConfigError(Problem(f"--save {path}", f"cannot be written: {error.strerror}", "name another")) from None


def read(path: Path, error: float) -> dict[str, Any]:
    """A baseline that was saved, known at this error. Raises ConfigError."""
    where, fix = f"--against {path}", "make one: accel bench ... --save FILE"
    try:
        found = json.loads(path.read_text())
        is_one = found["kind"] == "baseline" and found["format_version"] == 1
        count, sizes = rounds(found["samples"]), {len(values) for values in found["samples"].values()}
        is_one = is_one and sizes == {count} and _whole(found["samples"]) and bool(found["run"] and found["place"])
    except OSError as problem:
        raise ConfigError(Problem(where, f"cannot be read: {problem.strerror}", fix)) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        is_one = False
    if not is_one:
        raise ConfigError(Problem(where, "is no baseline of accel bench", fix))
    if count < (least := fewest_rounds(error)):
        why = f"holds {count} rounds; --error {error:g} needs {least}"
        raise ConfigError(Problem(where, why, "make it anew with --save, or try a larger --error"))
    return dict(found)


def _whole(samples: Samples) -> bool:
    numbers = [value for values in samples.values() for value in values]
    return {RUN, AGAIN, *PARTS} == set(samples) and all(0 < value < math.inf for value in numbers)


def differences(baseline: dict[str, Any], run: Run) -> list[str]:
    """In words, why the two are not the same measurement: another machine, or other work."""
    now, then = place(), baseline["place"]
    other = [f"{key} {now[key]} for {then.get(key)}" for key in now if now[key] != then.get(key)]
    node = {key: value for key, value in baseline["run"].items() if key != "format_version"}
    old = run_file.from_tree(node)
    device = f"hardware={run.hardware.option} for {old.hardware.option}"
    return other + ([device] if run.hardware.option != old.hardware.option else []) + unequal(old, run)
