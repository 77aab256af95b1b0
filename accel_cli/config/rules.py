"""The third door: a run before the rule table, and before what this machine holds of files and packages."""

from __future__ import annotations

import difflib
import glob
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from accel_cli.config.factory import form_problem, grant_problem
from accel_cli.config.facts import Facts, Rule, Watched
from accel_cli.config.machine import has_package
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.rule_table import RULES
from accel_cli.config.run import Run
from accel_cli.errors import ConfigError, Problem, SecurityError

__all__ = ["RULES", "Facts", "Rule", "judge", "refusals", "warnings"]


def judge(facts: Facts) -> list[str]:
    """Put a run before the rules.

    Returns the warnings, a line each. Raises SecurityError where code was not granted, ConfigError with every refusal.
    """
    if forbidden := list(ungranted(facts)):
        raise SecurityError(forbidden)
    if broken := refusals(facts):
        raise ConfigError(broken)
    return warnings(facts)


def refusals(facts: Facts, spoiled: set[str] | None = None) -> list[Problem]:
    """Everything that forbids the run, but what would rest on a ``spoiled`` group or key."""
    spoiled = spoiled or set()
    broken = [rule.problem(facts) for rule in RULES if rule.level == "refuse" and _applies(rule, facts, spoiled)]
    for check in (absent_packages, _absent_files, _misspelt_factories):
        broken += [problem for key, problem in check(facts) if not _is_spoiled(key, spoiled)]
    return broken


def warnings(facts: Facts) -> list[str]:
    """What is allowed but unwise, a line each."""
    found = (rule.problem(facts) for rule in RULES if rule.level == "warn" and rule.when(facts))
    return [f"{p.where}: {p.why}; {p.fix}" for p in found]


def ungranted(facts: Facts, spoiled: set[str] | None = None) -> Iterator[Problem]:
    """Factories whose code the command line does not name."""
    for where, factory in _factories(facts):
        if _is_spoiled(where, spoiled or set()) or not factory or form_problem(factory, where):
            continue
        if problem := grant_problem(factory, where, facts.plugins):
            yield problem


def _applies(rule: Rule, facts: Facts, spoiled: set[str]) -> bool:
    if not spoiled:
        return rule.when(facts)
    watched: Any = Watched(facts.run)
    return rule.when(replace(facts, run=watched)) and not watched.touches(spoiled)


def _is_spoiled(key: str, spoiled: set[str]) -> bool:
    return key in spoiled or key.partition(".")[0] in spoiled


def chosen(run: Run) -> Iterator[tuple[str, str, Any]]:
    """(group, prefix of its keys, option) for every option of a run."""
    for group in GROUPS:
        held = getattr(run, group)
        if group in SEVERAL:
            for name, option in held.items():
                yield group, f"{group}.{SEVERAL[group]}.{name}", option
        else:
            yield group, group, held


def _factories(facts: Facts) -> Iterator[tuple[str, str | None]]:
    for _, prefix, option in chosen(facts.run):
        for key, value in option:
            if key == "factory" or (key == "collate" and value is not None and ":" in value):
                yield f"{prefix}.{key}", value
        if getattr(option, "is_factory", False):
            yield f"{prefix}.teacher", option.teacher


def _misspelt_factories(facts: Facts) -> Iterator[tuple[str, Problem]]:
    for where, factory in _factories(facts):
        group = where.partition(".")[0]
        if not factory:
            fix = f"add {where}=my_file:MyName --plugin my_file.py"
            yield where, Problem(f"{group}=custom", f"needs {where} (package.module:name)", fix)
        elif problem := form_problem(factory, where):
            yield where, problem


def absent_packages(facts: Facts) -> Iterator[tuple[str, Problem]]:
    """(prefix or full key, problem) of every option that asks for a package that is not there."""
    for group, prefix, option in chosen(facts.run):
        entry = table(group)[option.option]
        for package in entry.requires:
            if not has_package(package):
                why = f"needs the package {package}, which is not installed"
                yield prefix, Problem(f"{group}={option.option}", why, entry.installing(package))
        for program in entry.programs:
            if shutil.which(program) is None:
                why = f"needs the program {program}, which is not on PATH"
                yield prefix, Problem(f"{group}={option.option}", why, f"install {program}")
        for key, package in option.packages.items():
            if not has_package(package):
                why, full = f"needs the package {package}, which is not installed", f"{prefix}.{key}"
                yield full, Problem(f"{full}={getattr(option, key)}", why, f"pip install 'accel-cli[{package}]'")


def _absent_files(facts: Facts) -> Iterator[tuple[str, Problem]]:
    """``path`` is a file and ``root`` a folder, in every group; a wrong one is found before any rank starts.

    ``many_files``: a path may be a folder or a glob as well.
    """
    for _, prefix, option in chosen(facts.run):
        for key, kind, right in _PLACES:
            value, full = getattr(option, key, None), f"{prefix}.{key}"
            if not value or (kind == "folder" and getattr(option, "downloads", False)):
                continue
            if key == "path" and getattr(option, "is_address", False):
                continue
            if key == "tokenizer" and not getattr(option, "reads_file", False):
                continue
            if key == "path" and getattr(option, "many_files", False):
                kind, right = "file or folder, and no file fits it", _is_or_fits
            path = Path(value).expanduser()
            try:
                if right(path):
                    continue
                why = f"no such {kind}" if not path.exists() else f"not a {kind}"
            except (OSError, ValueError) as error:
                why = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            yield full, Problem(f"{full}={value}", why, _near_path(path, full))


def _is_or_fits(path: Path) -> bool:
    return path.is_file() or path.is_dir() or any(glob.iglob(str(path), recursive=True))


_PLACES: tuple[tuple[str, str, Callable[[Path], bool]], ...] = (
    ("path", "file", Path.is_file),
    ("tokenizer", "file", Path.is_file),
    ("root", "folder", Path.is_dir),
)


def _near_path(path: Path, key: str) -> str:
    try:
        names = [entry.name for entry in list(path.parent.iterdir())[:1000] if entry.name != path.name]
        parent_is_there = path.parent.is_dir()
    except (OSError, ValueError):
        names, parent_is_there = [], False
    near = difflib.get_close_matches(path.name, names, n=1)
    if near:
        return f"did you mean {key}={path.parent / near[0]} ?"
    return "check the path" if parent_is_there else f"check the path; {path.parent} cannot be read either"
