"""Run: the whole typed configuration of one run. The second door: types and ranges, all problems at once."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from accel_cli.config import tree
from accel_cli.config.names import Names
from accel_cli.config.parts import GROUPS, SEVERAL, own_keys, table
from accel_cli.config.schema.base import Option
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.validate import Finding, Part, validate
from accel_cli.errors import ConfigError, Problem

FORMAT_VERSION = 1


class Several(dict[str, Option]):
    """The chosen options of a group that takes several, by name, in order."""

    own: Any = None
    """The keys that the group has beside them; None where it has none."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attribute a group and a section. Groups that take several options hold them by name, in order."""

    hardware: Any
    strategy: Any
    communication: Any
    precision: Any
    compile: Any
    optimizer: Any
    schedule: Any
    data: Any
    loader: Any
    augment: Several
    model: Any
    task: Any
    transfer: Any
    compression: Several
    stopping: Any
    tracking: Several
    export: Any
    launch: Any
    train: Any
    metrics: Any
    evaluate: Any
    checkpoint: Any
    profile: Any

    def to_tree(self) -> dict[str, Any]:
        """Plain containers, as written to run.yaml."""
        out: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in SEVERAL:
                own = {} if value.own is None else value.own.model_dump()
                held = {name: option.model_dump() for name, option in value.items()}
                out[field.name] = {**own, SEVERAL[field.name]: held}
            else:
                out[field.name] = value.model_dump()
        return out

    def with_option(self, group: str, option: str) -> Run:
        """The same run with another option of a group: its defaults, and this run's values where keys are shared."""
        node = _defaults(tree.options(group)[option])
        old = getattr(self, group).model_dump()
        shared = {key: old.get(key, value) for key, value in node.items()}
        part: Any = table(group)[option].schema.model_validate({**shared, "option": option})
        return replace(self, **{group: part})

    def with_values(self, group: str, **values: Any) -> Run:
        """The same run with some keys of a group or section set."""
        return replace(self, **{group: getattr(self, group).model_copy(update=values)})


@dataclass(frozen=True)
class Checked:
    """What the second door found in a composed tree."""

    run: Run | None
    """With the default in the place of every value that has a problem; None where a whole part is missing."""
    problems: list[Problem]
    spoiled: set[str]
    """Full keys that the problems are about."""


def check_tree(
    node: dict[str, Any],
    names: Names | None = None,
    spelling: dict[str, str] | None = None,
    spoiled: Collection[str] = (),
) -> Checked:
    """Check a composed tree against the schema, every group and section of it.

    ``spelling`` maps a group or full key to the words that set it, so that a problem is shown as it was typed.
    Of ``spoiled`` keys nothing is said: they have a problem already.
    """
    names, spelling = names or Names(), spelling or {}
    found: list[Finding] = []
    known = {*GROUPS, *SECTIONS, "format_version"}
    problems = [names.unknown_key(str(key), spelling.get(key, str(key))) for key in node if key not in known]
    parts: dict[str, Any] = {}
    for group in GROUPS:
        if group in SEVERAL:
            parts[group] = _several(group, node.get(group), names, spelling, found, problems)
        else:
            parts[group] = _option(group, node.get(group), group, names, spelling, found, problems)
    defaults = _defaults(tree.shipped("configs") / "train.yaml")
    for name, schema in SECTIONS.items():
        held = node.get(name)
        if isinstance(held, dict):
            parts[name], wrong = validate(Part(schema, name, name, held, defaults[name], names, spelling))
            found += wrong
        else:
            problems.append(Problem(spelling.get(name, name), f"{name} is a section of keys", f"set {name}.<key>=..."))
            parts[name] = None
    problems += [finding.problem for finding in found if not set(finding.about) <= set(spoiled)]
    run = None if any(part is None for part in parts.values()) else Run(**parts)
    return Checked(run, problems, {key for finding in found for key in finding.about})


def from_tree(node: dict[str, Any], names: Names | None = None, spelling: dict[str, str] | None = None) -> Run:
    """The same, for a tree that has to be right. Raises ConfigError with every problem of every group."""
    checked = check_tree(node, names, spelling)
    if checked.problems or checked.run is None:
        raise ConfigError(checked.problems)
    return checked.run


def _several(
    group: str, node: Any, names: Names, spelling: dict[str, str], found: list[Finding], problems: list[Problem]
) -> Several | None:
    holder, schema = SEVERAL[group], own_keys(group)
    held = node.get(holder) if isinstance(node, dict) else None
    if not isinstance(node, dict) or not isinstance(held, dict):
        problems.append(Problem(spelling.get(group, group), f"holds no {holder}", f"try {group}=none"))
        return None
    beside = {key: value for key, value in node.items() if key not in (holder, "option")}
    options: Any = Several()
    if schema is not None:
        defaults = _defaults(tree.shipped("configs") / "train.yaml")[group]
        options.own, wrong = validate(Part(schema, group, group, beside, defaults, names, spelling))
        found += wrong
    for key in beside if schema is None else ():
        full = f"{group}.{key}"
        problems.append(names.unknown_key(full, spelling.get(full, full)))
    for name, option in held.items():
        options[name] = _option(group, option, f"{group}.{holder}.{name}", names, spelling, found, problems, name)
    return None if None in options.values() else options  # type: ignore[no-any-return]


def _option(
    group: str,
    node: Any,
    where: str,
    names: Names,
    spelling: dict[str, str],
    found: list[Finding],
    problems: list[Problem],
    name: str = "",
) -> Option | None:
    option = str(name or (node.get("option") if isinstance(node, dict) else ""))
    if option not in table(group):
        problems.append(names.unknown(group, option, table(group), spelling.get(where, f"{group}={option}")))
        return None
    held = {**(node if isinstance(node, dict) else {}), "option": option}
    defaults = _defaults(tree.options(group)[option])
    schema = table(group)[option].schema
    built, wrong = validate(Part(schema, f"{group}={option}", where, held, defaults, names, spelling))
    found += wrong
    return built  # type: ignore[return-value]


@cache
def _defaults(path: Path) -> dict[str, Any]:
    return tree.read_yaml(path)


def write(run: Run, path: Path) -> None:
    """Write run.yaml, the one file that ranks read."""
    head = "# The resolved configuration of a run. To repeat it: accel train --run run.yaml\n"
    body = yaml.safe_dump({"format_version": FORMAT_VERSION, **run.to_tree()}, sort_keys=False, width=10_000)
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    partial.write_text(head + body, encoding="utf-8")
    partial.replace(path)


def read(path: Path) -> Run:
    """Read a run.yaml. Raises ConfigError for one that is damaged or newer than this accel."""
    node = tree.read_yaml(path)
    version = node.pop("format_version", None)
    if version != FORMAT_VERSION:
        why = f"format {version}; this accel reads {FORMAT_VERSION}"
        raise ConfigError(Problem(str(path), why, "use the accel that wrote it, or compose the run again"))
    return from_tree(node)
