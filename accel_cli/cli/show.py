"""accel show: the composed tree, who set each value, what every key means, and the course of the learning rate."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from accel_cli.cli import schedule_plot
from accel_cli.cli.check import base
from accel_cli.cli.explain import explain, shown, text
from accel_cli.cli.key_types import type_text
from accel_cli.cli.schedule_course import course
from accel_cli.cli.table import columns, paint
from accel_cli.config.machine import has_package
from accel_cli.config.parts import SEVERAL, load, own_keys, table
from accel_cli.config.plan import Plan, plan
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.errors import AccelError, ConfigError, Problem

_KEY = re.compile(r"^(\s*(?:- )?)([\w./-]+:)(.*)$")


def main(arguments: argparse.Namespace) -> int:
    planned = plan(
        arguments.overrides, config_dirs=arguments.config_dir, plugins=arguments.plugin, base=base(arguments.run)
    )
    if arguments.explain:
        layers = explain(planned, arguments.explain)
        result, lines = {"key": arguments.explain, "layers": layers}, text(arguments.explain, layers)
    elif arguments.schedule or arguments.plot:
        result, lines = schedule(planned, arguments.plot)
    elif arguments.help_keys:
        rows = help_rows(planned)
        cells = [[f"{row['key']}={shown(row['value'])}", row["type"], row["meaning"]] for row in rows]
        result, lines = {"keys": rows}, columns(cells, [("cyan", "dim", "")] * len(rows))
    else:
        result = planned.run.to_tree()
        lines = painted(tree_text(result))
    print(json.dumps(result) if arguments.json else lines)
    return 0


def schedule(planned: Plan, picture: Path | None) -> tuple[dict[str, Any], str]:
    """The learning rate's course as numbers, and as text; drawn to the file ``picture`` too, if one is named."""
    if picture is not None and not has_package("matplotlib"):
        why = "needs the package matplotlib, which is not installed"
        raise ConfigError(Problem(f"--plot {picture}", why, "pip install 'accel-cli[matplotlib]'"))
    try:
        drawn = course(planned)
        result, lines = drawn.to_dict(), schedule_plot.text(drawn, shutil.get_terminal_size().columns)
    except AccelError:
        raise
    except Exception as error:
        if planned.run.schedule.option != "custom":
            raise
        why = f"schedule.factory={planned.run.schedule.factory} raised {type(error).__name__}: {error}"
        raise AccelError(why, "--traceback shows where") from error
    if picture is not None:
        load("accel_cli.cli.schedule_picture:draw")(drawn, picture)
        result["picture"], lines = str(picture), f"{lines}\n{picture}"
    return result, lines


def tree_text(node: dict[str, Any]) -> str:
    return yaml.safe_dump(node, sort_keys=False, width=10_000).rstrip()


def painted(lines: str) -> str:
    """YAML with its keys in colour, on a terminal."""
    return "\n".join(
        f"{match[1]}{paint(match[2], 'cyan')}{match[3]}" if (match := _KEY.match(line)) else line
        for line in lines.splitlines()
    )


def help_rows(planned: Plan) -> list[dict[str, Any]]:
    """Each key of the sections and of the chosen options: its value here, its type and range, its meaning."""
    rows = []
    run = planned.run
    for name, section in SECTIONS.items():
        rows += _help(name, section, getattr(run, name))
    for group in planned.composed.names.options:
        held = getattr(run, group)
        if group in SEVERAL and (own := own_keys(group)) is not None:
            rows += _help(group, own, held.own)
        for option in held.values() if group in SEVERAL else [held]:
            prefix = f"{group}.{SEVERAL[group]}.{option.option}" if group in SEVERAL else group
            rows += _help(prefix, table(group)[option.option].schema, option)
    return rows


def _help(prefix: str, schema: Any, value: Any) -> list[dict[str, Any]]:
    return [
        {
            "key": f"{prefix}.{key}",
            "value": getattr(value, key),
            "type": type_text(field),
            "meaning": field.description or "",
        }
        for key, field in schema.model_fields.items()
        if key != "option"
    ]
