"""Run: the whole typed configuration of one run. The second door: types and ranges, all problems at once."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from accel_cli.config import tree
from accel_cli.config.names import Names
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.schema.base import Option, Section
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem

FORMAT_VERSION = 1


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
    augment: dict[str, Option]
    model: Any
    task: Any
    transfer: Any
    compression: dict[str, Option]
    stopping: Any
    tracking: dict[str, Option]
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
                out[field.name] = {SEVERAL[field.name]: {name: option.model_dump() for name, option in value.items()}}
            else:
                out[field.name] = value.model_dump()
        return out

    def with_option(self, group: str, option: str) -> Run:
        """The same run with another option of a group: its own defaults, and this run's values where keys are shared."""
        node = tree.read_yaml(tree.options(group)[option])
        old = getattr(self, group).model_dump()
        shared = {key: old.get(key, value) for key, value in node.items()}
        return replace(self, **{group: table(group)[option].schema.model_validate({**shared, "option": option})})

    def with_values(self, group: str, **values: Any) -> Run:
        """The same run with some keys of a group or section set."""
        return replace(self, **{group: getattr(self, group).model_copy(update=values)})


def from_tree(node: dict[str, Any], names: Names | None = None, typed: dict[str, str] | None = None) -> Run:
    """Check a composed tree against the schema.

    ``typed`` maps a full key to the override that the user typed for it, so that a problem is shown in her spelling.
    Raises ConfigError with every problem of every group.
    """
    names = names or Names()
    typed = typed or {}
    problems: list[Problem] = []
    parts: dict[str, Any] = {}
    known = {*GROUPS, *SECTIONS}
    for key in node:
        if key not in known and key != "format_version":
            problems.append(names.unknown_key(key, typed.get(key, key)))
    for group in GROUPS:
        if group in SEVERAL:
            parts[group] = _several(group, node.get(group), names, typed, problems)
        else:
            parts[group] = _option(group, group, node.get(group), names, typed, problems)
    for section, schema in SECTIONS.items():
        parts[section] = _validated(schema, section, node.get(section), names, typed, problems, {})
    if problems:
        raise ConfigError(problems)
    return Run(**parts)


def _several(
    group: str, node: Any, names: Names, typed: dict[str, str], problems: list[Problem]
) -> dict[str, Option] | None:
    held = node.get(SEVERAL[group]) if isinstance(node, dict) else None
    if not isinstance(held, dict):
        problems.append(Problem(typed.get(group, group), f"holds no {SEVERAL[group]}", f"try {group}=none"))
        return None
    for key in node:
        if key not in (SEVERAL[group], "option"):
            problems.append(names.unknown_key(f"{group}.{key}", typed.get(f"{group}.{key}", f"{group}.{key}")))
    found = {}
    for name, option in held.items():
        if name in table(group):
            found[name] = _option(group, f"{group}.{SEVERAL[group]}.{name}", option, names, typed, problems, name)
        else:
            where = f"{group}.{SEVERAL[group]}.{name}"
            problems.append(names.unknown(group, name, table(group), typed.get(where, where)))
    return found


def _option(
    group: str, where: str, node: Any, names: Names, typed: dict[str, str], problems: list[Problem], name: str = ""
) -> Option | None:
    option = name or (node.get("option") if isinstance(node, dict) else None)
    if option not in table(group):
        text = next((text for key, text in typed.items() if key == group or key.startswith(group + ".")), where)
        problems.append(
            Problem(text, f"{group} is one of its options with keys", f"try {group}={next(iter(table(group)))}")
        )
        return None
    values = {**node, "option": option} if isinstance(node, dict) else {"option": option}
    path = names.options[group].get(str(option))
    defaults = tree.read_yaml(path) if path else {}
    return _validated(table(group)[str(option)].schema, where, values, names, typed, problems, defaults)


def _validated(
    schema: type[Section],
    where: str,
    node: Any,
    names: Names,
    typed: dict[str, str],
    problems: list[Problem],
    defaults: dict[str, Any],
) -> Any:
    if not isinstance(node, dict):
        problems.append(Problem(typed.get(where, where), "is a section of keys", f"set {where}.<key>=..."))
        return None
    missing = [key for key, value in node.items() if value == "???"]
    for key in missing:
        problems.append(Problem(f"{where}.{key}", _meaning(schema, key, "has to be given"), f"add {where}.{key}=..."))
    try:
        return schema.model_validate({k: v for k, v in node.items() if k not in missing})
    except ValidationError as error:
        seen = {(key,) for key in missing}
        by_key: dict[str, list[Any]] = {}
        for detail in error.errors(include_url=False):
            by_key.setdefault(str(detail["loc"][0]), []).append(detail)
        for key, details in by_key.items():
            if (key,) not in seen:
                problems.append(_problem(schema, where, key, details, names, typed, defaults, node))
        return None


def _problem(
    schema: type[Section],
    where: str,
    key: str,
    details: list[Any],
    names: Names,
    typed: dict[str, str],
    defaults: dict[str, Any],
    node: dict[str, Any],
) -> Problem:
    full = f"{where}.{key}"
    inside = [text for typed_key, text in typed.items() if typed_key.startswith(full + ".")]
    text = typed.get(full) or (inside[0] if inside else f"{full}={_show(node.get(key))}" if key in node else full)
    kinds = {detail["type"] for detail in details}
    if "extra_forbidden" in kinds:
        chosen = node.get("option")
        owner = f"{where.split('.')[0]}={chosen}" if chosen else where
        near = [f"{where}.{n}" for n in nearest(key, [f for f in schema.model_fields if f != "option"])]
        near += [k for k in names.near_keys(full) if k not in near]
        value = f"={text.partition('=')[2]}" if "=" in text else ""
        near = near[:3]
        if near and not near[0].startswith(f"{where}.") or (near and near[0] == full):
            options = names.keys.get(near[0], [])
            if options:
                group = where.split(".")[0]
                return Problem(
                    text, f"{owner} has no key {key}", f"{key} is a key of {group}={' and '.join(options[:3])}"
                )
        return Problem(text, f"{owner} has no key {key}", did_you_mean([n + value for n in near]) or _keys(schema))
    if kinds == {"missing"}:
        return Problem(full, _meaning(schema, key, "is needed"), f"add {full}=...")
    fix = f"try {full}={_show(defaults[key])}" if defaults.get(key) not in (None, "???") else ""
    literals = [d for d in details if d["type"] == "literal_error"]
    if literals:
        allowed = [w.strip("'") for w in literals[0]["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        near = nearest(str(node.get(key)), allowed)
        fix = did_you_mean([f"{full}={n}" for n in near]) or f"one of: {', '.join(allowed)}"
    return Problem(text, _meaning(schema, key, " or ".join(dict.fromkeys(_reason(d) for d in details))), fix)


def _reason(detail: Any) -> str:
    """What pydantic found, in plain words."""
    context = detail.get("ctx", {})
    return {
        "float_type": "expected a number",
        "float_parsing": "expected a number",
        "int_type": "expected a whole number",
        "int_from_float": "expected a whole number",
        "bool_type": "expected true or false",
        "string_type": "expected text",
        "list_type": "expected a list [a,b]",
        "tuple_type": "expected a list [a,b]",
        "dict_type": "expected keys with values {a: 1}",
        "finite_number": "expected a finite number",
        "greater_than": f"must be above {context.get('gt')}",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than": f"must be below {context.get('lt')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "literal_error": f"expected {context.get('expected')}",
        "string_too_short": "must not be empty",
        "too_short": "has too few entries",
        "none_required": "or null",
    }.get(detail["type"], detail["msg"][:1].lower() + detail["msg"][1:])


def _meaning(schema: type[Section], key: str, reason: str) -> str:
    field = schema.model_fields.get(key)
    return f"{reason} ({field.description})" if field is not None and field.description else reason


def _keys(schema: type[Section]) -> str:
    keys = [key for key in schema.model_fields if key != "option"]
    return f"it has: {', '.join(keys)}" if keys else "it has no keys"


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, dict)):
        return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return str(value)


def write(run: Run, path: Path) -> None:
    """Write run.yaml, the one file that ranks read."""
    head = "# The resolved configuration of a run. To repeat it: accel train --run run.yaml\n"
    body = yaml.safe_dump({"format_version": FORMAT_VERSION, **run.to_tree()}, sort_keys=False, width=10_000)
    path.write_text(head + body, encoding="utf-8")


def read(path: Path) -> Run:
    """Read a run.yaml. Raises ConfigError for one that is damaged or newer than this accel."""
    node = tree.read_yaml(path)
    version = node.pop("format_version", None)
    if version != FORMAT_VERSION:
        why = f"format {version}; this accel reads {FORMAT_VERSION}"
        raise ConfigError(Problem(str(path), why, "use the accel that wrote it, or compose the run again"))
    return from_tree(node)
