"""accel show: the composed tree, who set each value, and what every key means."""

from __future__ import annotations

import argparse
import json
from typing import Any

import yaml

from accel_cli.cli.check import base
from accel_cli.cli.plan import Plan, plan
from accel_cli.config import tree
from accel_cli.config.parts import SEVERAL, table
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem


def main(arguments: argparse.Namespace) -> int:
    planned = plan(
        arguments.overrides, config_dirs=arguments.config_dir, plugins=arguments.plugin, base=base(arguments.run)
    )
    if arguments.explain:
        rows = explain(planned, arguments.explain)
        if arguments.json:
            print(json.dumps({"key": arguments.explain, "layers": rows}))
        else:
            print(explain_text(arguments.explain, rows))
    elif arguments.help_keys:
        print(help_keys(planned))
    elif arguments.json:
        print(json.dumps(planned.run.to_tree()))
    else:
        print(tree_text(planned.run.to_tree()))
    return 0


def tree_text(node: dict[str, Any]) -> str:
    return yaml.safe_dump(node, sort_keys=False, width=10_000).rstrip()


def explain(planned: Plan, key: str) -> list[dict[str, Any]]:
    """Every layer that set ``key``, the one that holds first: {"value", "by"}.

    ``key`` is a full key (``optimizer.learning_rate``) or a group (``strategy``: which option, and who chose it).
    """
    final = planned.run.to_tree()
    is_group = key in planned.composed.names.options
    known = sorted({*flat(final), *planned.composed.names.options})
    if not is_group and key not in flat(final):
        raise ConfigError(Problem(key, "no such key in this run", did_you_mean(nearest(key, known))))
    rows: list[dict[str, Any]] = []
    for decision in planned.decisions:
        if decision.key == key:
            rows.append({"value": decision.value, "by": f"auto: {decision.why}"})
    request = planned.composed.request
    if typed := (request.choices if is_group else request.values).get(key):
        value = ",".join(typed) if is_group else str(typed).partition("=")[2]
        rows.append({"value": value, "by": "the command line"})
    for path in request.recipes:
        content = tree.read_yaml(path)
        found = _chosen_by(content, key) if is_group else flat(content).get(key)
        if found is not None:
            rows.append({"value": found, "by": f"recipe {path}"})
    if not is_group:
        group = key.split(".")[0]
        if group in planned.composed.names.options:
            rows += _option_rows(planned, key, group)
    train = tree.read_yaml(tree.shipped("configs") / "train.yaml")
    found = _chosen_by(train, key) if is_group else flat(train).get(key, _ABSENT)
    if found is not None and found is not _ABSENT:
        rows.append({"value": found, "by": "configs/train.yaml"})
    return rows


_ABSENT = object()


def _chosen_by(content: dict[str, Any], group: str) -> Any:
    for item in content.get("defaults") or []:
        for name, option in item.items() if isinstance(item, dict) else ():
            if name.removeprefix("override").strip().lstrip("/") == group:
                return option
    return None


def _option_rows(planned: Plan, key: str, group: str) -> list[dict[str, Any]]:
    names = planned.composed.names
    if group in SEVERAL:
        option, leaf = key.split(".")[2], ".".join(key.split(".")[3:])
    else:
        option, leaf = planned.composed.tree[group]["option"], key.partition(".")[2]
    path = names.options[group].get(option)
    content = flat(tree.read_yaml(path)) if path else {}
    own = path is not None and path.is_relative_to(tree.shipped("configs"))
    where = f"configs/{group}/{option}.yaml" if own else str(path)
    return [{"value": content[leaf], "by": where}] if leaf in content else []


def explain_text(key: str, rows: list[dict[str, Any]]) -> str:
    def line(row: dict[str, Any]) -> str:
        value = row["value"]
        shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        return f"{key}={shown}   {row['by']}"

    if not rows:
        return f"{key}   set by nobody"
    return "\n".join([line(rows[0]), *(f"  overrode {line(row)}" for row in rows[1:])])


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found


def help_keys(planned: Plan) -> str:
    """Each key of the chosen options: its value here, and its meaning."""
    lines = []
    run = planned.run
    for name, section in SECTIONS.items():
        lines += _help(name, section, getattr(run, name))
    for group in planned.composed.names.options:
        held = getattr(run, group)
        for option in held.values() if group in SEVERAL else [held]:
            prefix = f"{group}.{SEVERAL[group]}.{option.option}" if group in SEVERAL else group
            lines += _help(prefix, table(group)[option.option].schema, option)
    width = min(max(len(left) for left, _ in lines), 56)
    return "\n".join(f"{left:<{width}}  {right}" for left, right in lines)


def _help(prefix: str, schema: Any, value: Any) -> list[tuple[str, str]]:
    return [
        (f"{prefix}.{key}={json.dumps(getattr(value, key))}", field.description or "")
        for key, field in schema.model_fields.items()
        if key != "option"
    ]
