"""The folder of a ledger, sweep, tune or bench, read as it is, also one that is half written."""

from __future__ import annotations

import math
import shlex
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from accel_cli.analysis.reading import Reading, Record, read_object
from accel_cli.analysis.run_folder import RunFolder
from accel_cli.analysis.wording import NOTHING, Status, as_number, is_finite, number

KINDS = ("ledger", "sweep", "tune", "bench")
STATES = {
    "settled": Status("Settled: every verdict is in", "good"),
    "completed": Status("Completed", "good"),
    "budget": Status("Its time was spent before every verdict was settled", "warning"),
    "interrupted": Status("Interrupted, and kept: the same command goes on with it", "warning"),
    "failed": Status("Failed before its end", "bad"),
    "running": Status("Not ended: still running, or killed", "warning"),
}
UNKNOWN_STATE = Status("Says nothing of how it ended", "warning")
HUGE = 1e100
FEW_DIGITS = 1000
LONGEST = 400
"""Characters of a cause that a table shows."""
FAR = 100.0
"""The factor between a ratio and an end of its interval from which on the end says nothing."""


class Interval(NamedTuple):
    """A value and its interval; an end that is not known is infinite."""

    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def known(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def text(self, form: str = ".3g") -> str:
        return f"{self.value:{form}} {self.range(form)}"

    def range(self, form: str = ".3g") -> str:
        if not math.isfinite(self.low) and not math.isfinite(self.high):
            return "[?]"
        usual = [form if abs(end) < FEW_DIGITS else ".3g" for end in (self.low, self.high)]
        ends = zip((self.low, self.high), usual, strict=True)
        low, high = (f"{end:{form}}" if math.isfinite(end) else "?" for end, form in ends)
        return f"[{low}, {high}]"


class Result:
    """What a study wrote; nothing here raises for a bad file. ``notes`` says what is missing or damaged."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path, self.kind = path, kind

    @property
    def name(self) -> str:
        return self.path.name or self.path.resolve().name

    @property
    def data(self) -> Record:
        return self._data.value

    @property
    def environment(self) -> Record:
        return self._environment.value

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._data.notes, *self._environment.notes)

    @property
    def status(self) -> Status:
        return STATES.get(str(self.data.get("status")), UNKNOWN_STATE)

    @property
    def command(self) -> str:
        return words_of(self.data.get("command"))

    def rows(self, key: str) -> list[Record]:
        return rows_of(self.data.get(key))

    def part(self, key: str) -> Record:
        return part_of(self.data.get(key))

    def run(self, name: Any) -> RunFolder | None:
        """A run that the study holds, named relative to its folder; None for one that is not there."""
        if not isinstance(name, str) or not name:
            return None
        path = self.path / name
        try:
            inside = path.resolve().is_relative_to(self.path.resolve())
            return RunFolder(path) if inside and (path / "run.yaml").is_file() else None
        except (OSError, ValueError):
            return None

    @cached_property
    def _data(self) -> Reading[Record]:
        value, notes = read_object(self.path / f"{self.kind}.json")
        try:
            return Reading(sane(value), notes)
        except RecursionError:
            return Reading({}, (f"{self.kind}.json is damaged",))

    @cached_property
    def _environment(self) -> Reading[Record]:
        return read_object(self.path / "environment.json")


def sane(tree: Any) -> Any:
    """Numbers that nothing measures, beyond 1e100, become None: no scale could hold them."""
    if isinstance(tree, dict):
        return {key: sane(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [sane(value) for value in tree]
    return None if isinstance(tree, int | float) and abs(tree) >= HUGE else tree


def kind_of(folder: Path) -> str | None:
    """ledger, sweep, tune or bench, by the file that the folder holds; None for a run's."""
    return next((kind for kind in KINDS if (folder / f"{kind}.json").is_file()), None)


def interval(value: Any) -> Interval | None:
    """From {"value", "low", "high"}; None where there is no value."""
    if not isinstance(value, dict) or not is_finite(value.get("value")):
        return None
    low, high = as_number(value.get("low")), as_number(value.get("high"))
    known = Interval(float(value["value"]), -math.inf if low is None else low, math.inf if high is None else high)
    return known._replace(low=-math.inf) if math.isnan(known.low) or math.isnan(known.high) else known


def spread(values: Any) -> Interval | None:
    """The mean of the finite values, from the lowest to the highest."""
    kept = [float(value) for value in values if is_finite(value)] if isinstance(values, list | tuple) else []
    return Interval(sum(kept) / len(kept), min(kept), max(kept)) if kept else None


def finite_or(value: Any, default: float) -> float:
    return float(value) if is_finite(value) else default


def ratio_text(value: Any) -> str:
    """``0.612 [0.600, 0.624]``; an end so far off that it says nothing, as of two seeds, is ``?``."""
    found = value if isinstance(value, Interval) else interval(value)
    if not found:
        return NOTHING
    low = found.low if found.low * FAR > found.value else -math.inf
    high = found.high if found.high < found.value * FAR else math.inf
    return Interval(found.value, low, high).text(ratio_form(found))


def ratio_form(found: Interval) -> str:
    """Three decimals: a margin is a hundredth."""
    return ".3f" if abs(found.value) < 10 else ".3g"


def words_of(value: Any) -> str:
    """A list of words as one line, as a shell takes it."""
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(str(word)) if _shell_splits(str(word)) else str(word) for word in value)
    return "" if value is None else str(value)


def rows_of(value: Any) -> list[Record]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def part_of(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def short(text: Any) -> str:
    flat = " ".join(str(text or "").split())
    return flat if len(flat) <= LONGEST else f"{flat[:LONGEST]} ..."


def count(items: int, word: str) -> str:
    return f"{number(items)} {word}{'' if items == 1 else 's'}"


def _shell_splits(word: str) -> bool:
    return not word or any(letter in word for letter in " \t\n'\"\\$`&;|<>(){}*?!#[]")
