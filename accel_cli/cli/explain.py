"""Who set a value: every layer that did, the one that holds first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accel_cli.cli.table import paint
from accel_cli.config import tree
from accel_cli.config.layers import Layer, flat
from accel_cli.config.parts import SEVERAL
from accel_cli.config.plan import Plan
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem

ABSENT = object()
COMMAND_LINE = "the command line"
Row = dict[str, Any]


def explain(planned: Plan, key: str) -> list[Row]:
    """Every layer that set ``key``, the one that holds first: {"value", "by"}.

    ``key`` is a full key (``optimizer.learning_rate``) or a group (``strategy``: which option, and who chose it).
    Raises ConfigError for a key that this run does not have.
    """
    groups = planned.composed.names.options
    final = planned.run.to_tree()
    found = chosen(planned, key) if key in groups else lookup(final, key) if "." in key else ABSENT
    if found is ABSENT:
        known = sorted({*(full for full, _ in flat(final)), *groups})
        why = "is a section of several keys" if key in final else "no such key in this run"
        inside = [full for full in known if full.startswith(f"{key}.")][:3]
        near = did_you_mean(inside or nearest(key, known))
        raise ConfigError(Problem(f"--explain {key}", why, near or planned.composed.names.unknown_key(key, key).fix))
    rows = [{"value": d.value, "by": f"auto: {d.why}"} for d in planned.decisions if d.key == key]
    rows += _group_rows(planned, key) if key in groups else _value_rows(planned, key)
    holds = rows[0]["value"] if rows else ABSENT
    if holds == "auto" and found != "auto":
        rows.insert(0, {"value": found, "by": "auto"})
    elif rows and (rows[0]["by"] == COMMAND_LINE or "${" in str(holds)):
        rows[0]["value"] = found  # as it was read, not as it was typed
    return rows


def chosen(planned: Plan, group: str) -> Any:
    """The option that holds; names with commas where a group takes several."""
    held = getattr(planned.run, group)
    return (",".join(held) or "none") if group in SEVERAL else held.option


def _group_rows(planned: Plan, group: str) -> Iterator[Row]:
    request, names = planned.composed.request, planned.composed.names
    if typed := request.choices.get(group):
        for name in typed:
            path = names.options[group][name]
            start = tree.read_yaml(path).get("option")
            if start is not None and not _is_own(path):
                yield {"value": start, "by": f"{path}, chosen as {group}={name}"}
        yield {"value": ",".join(typed), "by": COMMAND_LINE}
    for layer in _files(planned):
        if group in layer.choices:
            yield {"value": ",".join(layer.choices[group]), "by": _named(layer)}
    yield {"value": names.defaults[group], "by": "configs/train.yaml"}


def _value_rows(planned: Plan, key: str) -> Iterator[Row]:
    request = planned.composed.request
    for typed, text in request.values.items():
        if key == typed or key.startswith(f"{typed}."):
            yield {"value": text.partition("=")[2], "by": COMMAND_LINE}
    contents = [(layer.values, _named(layer)) for layer in _files(planned)]
    contents += _option_files(planned, key)
    contents += [(tree.read_yaml(tree.shipped("configs") / "train.yaml"), "configs/train.yaml")]
    for content, by in contents:
        value = lookup(content, key)
        if value is not ABSENT:
            yield {"value": value, "by": by}


def _option_files(planned: Plan, key: str) -> list[tuple[dict[str, Any], str]]:
    """The defaults of the chosen option: where auto chose another later, its own keys come from that one's file."""
    group, _, rest = key.partition(".")
    if group not in planned.composed.names.options:
        return []
    if group in SEVERAL:
        options, prefix = [rest.split(".")[1]] if "." in rest else [], f"{SEVERAL[group]}."
    else:
        options, prefix = [*planned.composed.choices[group], chosen(planned, group)], ""
    found = []
    for option in dict.fromkeys(options):
        path = tree.options(group).get(option)
        inner = tree.read_yaml(path) if path else {}
        held = {SEVERAL[group]: {option: inner}} if prefix else inner
        found.append(({group: held}, f"configs/{group}/{option}.yaml"))
    holding = [pair for pair in found if lookup(pair[0], key) is not ABSENT]
    return holding[:1]


def _files(planned: Plan) -> list[Layer]:
    """Recipes, presets and another run's run.yaml, the one that holds first; without the command line's own layer."""
    return [layer for layer in reversed(planned.composed.layers) if layer.label]


def _named(layer: Layer) -> str:
    path = Path(layer.label).absolute()
    for name in ("recipes", "configs"):
        if path.is_relative_to(tree.shipped(name)):
            return f"{name}/{path.relative_to(tree.shipped(name))}"
    return layer.label


def _is_own(path: Path) -> bool:
    return path.is_relative_to(tree.shipped("configs"))


def lookup(node: Any, key: str) -> Any:
    """The value at a dotted key, or ABSENT."""
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return ABSENT
        node = node[part]
    return node


def text(key: str, rows: list[Row]) -> str:
    """``key=value   by``, then what it overrode."""
    if not rows:
        return f"{key}   set by nobody"
    first, *others = [f"{key}={shown(row['value'])}   {row['by']}" for row in rows]
    return "\n".join([paint(first, "bold"), *(paint(f"  overrode {line}", "dim") for line in others)])


def shown(value: Any) -> str:
    """A value as it is typed in an override."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{shown(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    return str(value)
