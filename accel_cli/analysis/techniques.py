"""What a ledger compares: each technique alone, one after another added, and left out of the full set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accel_cli.analysis.equal_work import unequal
from accel_cli.config.plan import Plan, plan
from accel_cli.config.run import Run
from accel_cli.errors import ConfigError, Problem, in_a_line

BASELINE = "baseline"
ALONE, TOGETHER, LEFT_OUT = "alone", "together", "left_out"
CLOSING = {"[": "]", "{": "}", "(": ")", "'": "'", '"': '"'}


@dataclass(frozen=True)
class Row:
    """``arm`` is timed against ``against``, both names of arms; ``technique`` is what their ratio tells of."""

    technique: str
    form: str
    arm: str
    against: str


@dataclass
class Techniques:
    """The user's run, and what she wonders about. ``arms``: name -> plan; ``words``: name -> what it adds to the base.

    ``refused``: name -> why the arm cannot be; ``unequal``: name -> how its work differs from the baseline's.
    """

    base: list[str]
    plugins: list[str]
    config_dirs: Sequence[Path]
    run: Path | None
    words: dict[str, list[str]] = field(default_factory=dict)
    arms: dict[str, Plan] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unequal: dict[str, list[str]] = field(default_factory=dict)

    def plan(self, arm: str, *more: str) -> Plan:
        """The arm's run, with more overrides. Raises ConfigError."""
        words = over(self.base, [*self.words[arm], *more])
        return plan(words, config_dirs=self.config_dirs, plugins=self.plugins, base=self.run)

    def add(self, name: str, words: list[str]) -> str:
        """An arm of these words; returns the name of the one that runs the same, where there is one."""
        self.words[name] = words
        try:
            planned = self.plan(name)
        except ConfigError as error:
            self.refused[name] = in_a_line(error.problems)
            return name
        for other, known in self.arms.items():
            if _settings(known) == _settings(planned):
                del self.words[name]
                return other
        self.arms[name] = planned
        return name


def compare(
    techniques: Sequence[str],
    base: Sequence[str],
    *,
    plugins: Sequence[str],
    config_dirs: Sequence[Path],
    run: Path | None,
    alone: bool,
    unequal_too: bool,
) -> Techniques:
    """Compose all arms. Raises ConfigError: for a base or a technique that cannot run, for one that changes nothing,
    for two that set the same key, and for unequal work unless it was asked for."""
    found = Techniques(list(base), list(plugins), config_dirs, run)
    found.words[BASELINE] = []
    found.arms[BASELINE] = found.plan(BASELINE)
    on_this_machine(found.arms[BASELINE].run)
    names = {technique: split(technique) for technique in techniques}
    problems = [] if names else [Problem("accel ledger", "names no technique", "try accel ledger precision=bf16")]
    for name, words in names.items():
        found.words[name] = words
        try:
            found.arms[name] = found.plan(name)
        except ConfigError as error:
            problems += error.problems
    problems += [] if alone else _clashes(names)
    for name, planned in found.arms.items():
        if name != BASELINE and _settings(planned) == _settings(found.arms[BASELINE]):
            why = "the run has these settings already: there is nothing to compare"
            problems.append(Problem(name, why, 'choose the baseline with --base "OVERRIDE ..."'))
    if problems:
        raise ConfigError(problems)
    found.rows = [Row(name, ALONE, name, BASELINE) for name in names]
    if not alone and len(names) > 1:
        _combine(found, names)
    _judge_work(found, unequal_too)
    return found


def on_this_machine(run: Run) -> None:
    """Raises ConfigError for a run of which this machine does not see every step."""
    if run.launch.option != "local" or run.launch.most_nodes > 1:
        where = f"launch={run.launch.option} launch.nodes={run.launch.nodes}"
        why = "steps are timed on this machine alone"
        raise ConfigError(Problem(where, why, "try launch=local launch.nodes=1, inside a job of your own"))


def over(base: Sequence[str], words: Sequence[str]) -> list[str]:
    """The base's overrides with others on top: what sets the same key goes, and with a group's option its keys."""
    keys = {key_of(word) for word in words}
    return [word for word in base if key_of(word) not in keys and key_of(word).split(".")[0] not in keys] + list(words)


def key_of(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _combine(found: Techniques, names: dict[str, list[str]]) -> None:
    ordered = list(names)
    full = BASELINE
    for count in range(2, len(ordered) + 1):
        name = " + ".join(ordered[:count])
        full = found.add(name, [word for each in ordered[:count] for word in names[each]])
        found.rows.append(Row(name, TOGETHER, full, BASELINE))
    for left in ordered:
        others = [each for each in ordered if each != left]
        without = others[0] if len(others) == 1 else f"all but {left}"
        if len(others) > 1:
            without = found.add(without, [word for each in others for word in names[each]])
        found.rows.append(Row(left, LEFT_OUT, full, without))


def _judge_work(found: Techniques, unequal_too: bool) -> None:
    base = found.arms[BASELINE].run
    found.unequal = {name: words for name, arm in found.arms.items() if (words := unequal(base, arm.run))}
    if found.unequal and not unequal_too:
        raise ConfigError(
            Problem(name, f"is other work than the baseline's: {', '.join(words)}", "leave it out, or add --unequal")
            for name, words in found.unequal.items()
            if any(row.arm == name and row.form == ALONE for row in found.rows)
        )


def _clashes(names: dict[str, list[str]]) -> list[Problem]:
    setters: dict[str, str] = {}
    problems = []
    for name, words in names.items():
        for word in words:
            key = key_of(word)
            if setters.setdefault(key, name) != name:
                why = f"sets {key}, as {setters[key]} does: together one of them would be lost"
                problems.append(Problem(name, why, "add --alone to compare each with the baseline only"))
    return problems


def split(text: str) -> list[str]:
    """Overrides apart at spaces outside quotation marks and brackets, which belong to Hydra's grammar.

    Raises ConfigError where one is not closed, or where there is nothing.
    """
    words, word, closing = [], "", ""
    for letter in text:
        if closing and letter == closing[-1]:
            closing = closing[:-1]
        elif closing[-1:] not in ("'", '"') and letter in CLOSING:
            closing += CLOSING[letter]
        if letter.isspace() and not closing:
            words.append(word)
            word = ""
        else:
            word += letter
    words = [each for each in [*words, word] if each]
    if closing or not words:
        why = f"{closing[-1]} is missing" if closing else "holds no override"
        raise ConfigError(Problem(text or "an empty word", why, "write one or more overrides"))
    return words


def _settings(planned: Plan) -> str:
    return json.dumps(planned.run.to_tree(), sort_keys=True, default=str)
