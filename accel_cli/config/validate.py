"""One part of a run against its schema: what pydantic finds, in plain words, with what to type instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from accel_cli.config.names import Names
from accel_cli.config.schema.base import Section
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import Problem


@dataclass(frozen=True)
class Part:
    """A section, or a chosen option, and what is needed to speak about it."""

    schema: type[Section]
    owner: str
    """``optimizer=sgd`` or ``train``: what has the keys."""
    where: str
    """What stands before a key: ``optimizer``, ``augment.transforms.basic``."""
    values: dict[str, Any]
    defaults: dict[str, Any]
    names: Names
    spelling: dict[str, str]

    def typed(self, key: str) -> str:
        """The words that set ``key``, else key=value as it holds."""
        full = f"{self.where}.{key}"
        inside = next((text for k, text in self.spelling.items() if k.startswith(full + ".")), None)
        return self.spelling.get(full) or inside or (f"{full}={show(self.values[key])}" if key in self.values else full)

    @property
    def keys(self) -> list[str]:
        return [key for key in self.schema.model_fields if key != "option"]

    def meaning(self, key: str, reason: str) -> str:
        field = self.schema.model_fields.get(key)
        return f"{reason} ({field.description})" if field is not None and field.description else reason


class Finding(NamedTuple):
    problem: Problem
    about: list[str]
    """Full keys, to which nothing further should be said."""


def validate(part: Part) -> tuple[Section, list[Finding]]:
    """The part as its schema types it, and what is wrong with it.

    A value with a problem is replaced by its default, unchecked where that is itself to be given, so that the rules
    can still be asked about everything else.
    """
    held = {key: None if value == "???" else value for key, value in part.values.items()}
    try:
        return part.schema.model_validate(held), []
    except ValidationError as error:
        by_key: dict[str, list[Any]] = {}
        for detail in error.errors(include_url=False):
            by_key.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    found = [_finding(part, key, details) for key, details in by_key.items()]
    kept = {key: value for key, value in held.items() if key in part.schema.model_fields and key not in by_key}
    return part.schema.model_construct(**{**part.defaults, **kept}), found


def _finding(part: Part, key: str, details: list[Any]) -> Finding:
    full, text = f"{part.where}.{key}", part.typed(key)
    kinds = {detail["type"] for detail in details if not _entry(detail)}
    if "extra_forbidden" in kinds:
        near = _near(part, key)
        return Finding(_unknown(part, key, text, near), near or [f"{part.where}.{name}" for name in part.keys])
    if kinds == {"missing"} or (part.values.get(key) == "???" and full not in part.spelling):
        return Finding(Problem(part.owner, part.meaning(key, f"needs {full}"), f"add {full}=..."), [full])
    reason = " or ".join(dict.fromkeys(_reason(detail) for detail in _foremost(details)))
    expected = "expected " + reason.replace("expected ", "") if reason.startswith("expected ") else reason
    why = expected if "value_error" in kinds else part.meaning(key, expected)
    return Finding(Problem(text, why, _fix(part, key, details)), [full])


def _near(part: Part, key: str) -> list[str]:
    """Full keys that an unknown ``key`` may have been meant for, this part's own first."""
    own = [f"{part.where}.{name}" for name in nearest(key, part.keys)]
    return list(dict.fromkeys([*own, *part.names.near_keys(f"{part.where}.{key}")]))[:3]


def _unknown(part: Part, key: str, text: str, near: list[str]) -> Problem:
    why = f"{part.owner} has no key {key}"
    if near and near[0] == f"{part.where}.{key}":
        group = part.where.partition(".")[0]
        options = [f"{group}={option}" for option in part.names.keys[near[0]]]
        which = "which has it" if len(options) == 1 else "which have it"
        return Problem(text, why, f"leave it out, or choose {' or '.join(options[:3])}, {which}")

    value = text.partition("=")[2]
    found = did_you_mean([f"{name}={value}" if value else name for name in near])
    keys = ", ".join(part.keys)
    return Problem(text, why, found or (f"leave it out; it has: {keys}" if keys else "leave it out; it has no keys"))


def _fix(part: Part, key: str, details: list[Any]) -> str:
    full, value = f"{part.where}.{key}", part.values.get(key)
    allowed = _allowed(details)
    if allowed and isinstance(value, str) and (near := nearest(value, allowed)):
        return did_you_mean([f"{full}={name}" for name in near])
    default = part.defaults.get(key, "???")
    missing = default == "???" or (default is None and not _nullable(part, key))
    if missing or default == value:
        return f"one of: {', '.join(allowed)}" if allowed else f"give {full} another value"
    others = [name for name in allowed if name != show(default)]
    return f"try {full}={show(default)}" + (f", or one of: {', '.join(others)}" if others else "")


def _nullable(part: Part, key: str) -> bool:
    field = part.schema.model_fields.get(key)
    return field is not None and "None" in str(field.annotation)


def _allowed(details: list[Any]) -> list[str]:
    expected = [detail["ctx"]["expected"] for detail in details if detail["type"] == "literal_error"]
    return [word.strip("'") for text in expected for word in text.replace(" or ", ", ").split(", ")]


def _foremost(details: list[Any]) -> list[Any]:
    """Of a value that may have several types, the reasons that are worth telling: of a number, its range."""
    ranges = [d for d in details if d["type"].startswith(("greater", "less"))]
    if not ranges and any(d["type"] == "float_type" for d in details):
        return [d for d in details if not d["type"].startswith("int_")]
    return ranges[:1] or details


def _entry(detail: Any) -> str:
    """``entry 2, rate``, where something is wrong within an entry of a list that has keys of its own."""
    place = detail["loc"]
    return f"entry {place[1] + 1}, {place[2]}: " if len(place) > 2 and isinstance(place[1], int) else ""


def _reason(detail: Any) -> str:
    """What pydantic found, in plain words."""
    return _entry(detail) + _found(detail)


def _found(detail: Any) -> str:
    context = {key: show(value) for key, value in detail.get("ctx", {}).items() if key in ("gt", "ge", "lt", "le")}
    expected = detail.get("ctx", {}).get("expected", "").replace("'", "")
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
        "literal_error": f"expected {expected}",
        "string_too_short": "must not be empty",
        "string_too_long": "is too long",
        "too_short": "has too few entries",
        "too_long": "has too many entries",
        "none_required": "expected null",
        "extra_forbidden": "no such key",
        "missing": "is missing",
    }.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")


def show(value: Any) -> str:
    """A value as one types it in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return f"[{','.join(show(part) for part in value)}]"
    if isinstance(value, dict):
        return yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return str(value)
