"""Which options this machine can use, and why not the others: packages by import name, devices by the rule table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from accel_cli.config import run as run_file
from accel_cli.config import tree
from accel_cli.config.compose import compose
from accel_cli.config.decide import decide
from accel_cli.config.facts import Facts, Rule
from accel_cli.config.machine import GPU, Machine, detect, has_package
from accel_cli.config.names import Names
from accel_cli.config.parts import SEVERAL, table
from accel_cli.config.preload import ALLOCATORS
from accel_cli.config.rule_table import RULES
from accel_cli.config.run import Run, Several
from accel_cli.errors import Problem

FLAGS = frozenset({"avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8"})
EVERYTHING = Machine(
    64, 1 << 40, (GPU("a GPU", 80 << 30, (10, 0)),) * 8, mps=True, xpus=8, tpus=8, cpu_flags=FLAGS,
    core_mask=64, all_cores=64, allocators=ALLOCATORS, glibc=True,
)  # fmt: skip
"""A machine that lacks nothing: what is refused even there is not this machine's fault."""


@dataclass(frozen=True)
class Availability:
    """``why`` says what is missing, or, for an option that can be used, what speaks against it here."""

    usable: bool
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Judge:
    """Puts options, one at a time, into the default run and asks the rules about it, here and on ``EVERYTHING``."""

    names: Names
    default: Run
    """The default run, with its autos undecided."""
    defaults: dict[str, list[str]]
    machine: Machine

    @classmethod
    def of(cls, config_dirs: Sequence[Path] = (), machine: Machine | None = None) -> Judge:
        composed = compose([], config_dirs)
        run = run_file.from_tree(composed.tree, composed.names)
        return cls(composed.names, run, composed.choices, machine or detect())

    def is_default(self, group: str, option: str) -> bool:
        return option in self.defaults.get(group, ())

    def availability(self, group: str, option: str) -> Availability:
        """Whether ``group=option`` can be used on this machine."""
        start, values = self._start(group, option)
        entry = table(group).get(start)
        if entry is None:
            return Availability(False, f"starts from {group}={start}, which accel does not have", "write option: in it")
        for package in entry.requires:
            if not has_package(package):
                why = f"needs the package {package}, which is not installed"
                return Availability(False, why, entry.installing(package))
        for program in entry.programs:
            if shutil.which(program) is None:
                return Availability(False, f"needs the program {program}, which is not on PATH", f"install {program}")
        run = self._having(group, start, values)
        for level in ("refuse", "warn"):
            if problem := self._against(run, level, f"{group}={start}"):
                return Availability(level == "warn", problem.why, problem.fix)
        return Availability(True)

    def _start(self, group: str, option: str) -> tuple[str, dict[str, Any]]:
        """The option of accel's that this one is or starts from, and all its values."""
        path = self.names.options[group][option]
        values = tree.read_yaml(path)
        if path.is_relative_to(tree.shipped("configs")):
            return option, values
        start = str(values.pop("option", option))
        own = tree.options(group).get(start)
        return start, {**(tree.read_yaml(own) if own else {}), **values}

    def _having(self, group: str, option: str, values: dict[str, Any]) -> Run:
        """The default run with this option at its own defaults; keys that are the user's to name stay empty."""
        chosen: Any = table(group)[option].schema.model_construct(**{**values, "option": option})
        if group in SEVERAL:
            held = Several({} if SEVERAL[group] in values else {option: chosen})
            held.own, chosen = getattr(self.default, group).own, held
        return replace(self.default, **{group: chosen})

    def _against(self, run: Run, level: str, text: str) -> Problem | None:
        """The first rule that this machine breaks with ``run``, and a machine with everything would not."""
        elsewhere = {rule.id for rule, _ in _broken(run, EVERYTHING, level)}
        for rule, problem in _broken(run, self.machine, level):
            is_its_own = rule.id not in self._broken_anyway or problem.where == text
            if rule.id not in elsewhere and is_its_own:
                return problem
        return None

    @cached_property
    def _broken_anyway(self) -> set[str]:
        return {rule.id for level in ("refuse", "warn") for rule, _ in _broken(self.default, self.machine, level)}


def _broken(run: Run, machine: Machine, level: str) -> list[tuple[Rule, Problem]]:
    facts = Facts(decide(run, machine)[0], machine)
    return [(rule, rule.problem(facts)) for rule in RULES if rule.level == level and rule.when(facts)]
