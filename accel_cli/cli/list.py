"""accel list: groups, options, recipes and rules, a line each, and whether this machine can use them."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

from accel_cli.cli import rule_text
from accel_cli.cli.availability import Judge
from accel_cli.cli.table import columns
from accel_cli.config import tree
from accel_cli.config.names import Names
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.plan import plan
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.config.suggest import did_you_mean, nearest
from accel_cli.errors import ConfigError, Problem

Row = dict[str, Any]
WORDS = ("groups", "options", "recipes", "rules")


def main(arguments: argparse.Namespace) -> int:
    what = arguments.what
    if what == "rules":
        rows = rule_text.rows()
        text = columns([[row["id"], row["level"], row["text"], row["fix"]] for row in rows])
    elif what == "recipes":
        rows = recipe_rows(arguments.config_dir)
        text = columns([[f"+recipe={row['recipe']}", row["meaning"], note(row)] for row in rows], _styles(rows, 2))
        text = text or "no recipes"
    elif what == "groups":
        rows = group_rows(Judge.of(arguments.config_dir))
        text = columns([[row["group"], row["meaning"], _summed(row)] for row in rows])
    elif what == "options" or what in GROUPS:
        rows = option_rows(Judge.of(arguments.config_dir), GROUPS if what == "options" else (what,))
        text = columns([_cells(row) for row in rows], _styles(rows, 3))
    else:
        known = [*WORDS, *GROUPS]
        fix = did_you_mean(nearest(what, known)) or f"one of: {', '.join(known)}"
        raise ConfigError(Problem(f"accel list {what}", "no such group", fix))
    print(json.dumps({what if what in WORDS else "options": rows}) if arguments.json else text)
    return 0


def group_rows(judge: Judge) -> list[Row]:
    """Every group, then every section of plain keys."""
    found: list[Row] = []
    for group in GROUPS:
        options = list(judge.names.options[group])
        found.append(
            {
                "group": group,
                "meaning": _group_meaning(group),
                "default": ",".join(judge.defaults[group]),
                "options": options,
                "usable": [option for option in options if judge.availability(group, option).usable],
                "several": group in SEVERAL,
            }
        )
    for name, section in SECTIONS.items():
        meaning = (section.__doc__ or "").splitlines()[0]
        found.append({"group": name, "meaning": meaning, "keys": list(section.model_fields)})
    return found


def option_rows(judge: Judge, groups: tuple[str, ...]) -> list[Row]:
    found: list[Row] = []
    for group in groups:
        for option, path in judge.names.options[group].items():
            verdict = judge.availability(group, option)
            found.append(
                {
                    "group": group,
                    "option": option,
                    "meaning": _option_meaning(group, option, judge.names),
                    "default": judge.is_default(group, option),
                    "usable": verdict.usable,
                    "why": verdict.why,
                    "fix": verdict.fix,
                    "file": str(path),
                }
            )
    return found


def recipe_rows(config_dirs: list[Any]) -> list[Row]:
    """Every recipe, put through the same doors as a run of it."""
    found: list[Row] = []
    for name, path in tree.recipes(config_dirs).items():
        row: Row = {"recipe": name, "meaning": tree.headline(path), "usable": True, "why": "", "fix": ""}
        try:
            plan([f"+recipe={name}"], config_dirs=config_dirs)
        except ConfigError as error:
            problem = error.problems[0]
            row.update(usable=False, why=f"{problem.where}: {problem.why}", fix=problem.fix)
        found.append({**row, "file": str(path)})
    return found


def note(row: Row) -> str:
    """Empty for what simply works here."""
    if not row["why"]:
        return ""
    return f"{'but' if row['usable'] else 'not here:'} {row['why']}; {row['fix']}".rstrip("; ")


def _cells(row: Row) -> list[str]:
    return [f"{row['group']}={row['option']}", "default" if row["default"] else "", row["meaning"], note(row)]


def _styles(rows: list[Row], place: int) -> list[list[str]]:
    """The name bold or, where it cannot be used, dim; the note in the colour of a warning."""
    return [["bold" if row["usable"] else "dim", *[""] * (place - 1), "yellow"] for row in rows]


def _summed(row: Row) -> str:
    if "keys" in row:
        return "keys: " + ", ".join(row["keys"])
    absent = [option for option in row["options"] if option not in row["usable"]]
    words = [f"{option}*" if option in row["default"].split(",") else option for option in row["usable"]]
    return "options: " + ", ".join(words) + (f"; not here: {', '.join(absent)}" if absent else "")


def _group_meaning(group: str) -> str:
    text = (importlib.import_module(f"accel_cli.config.schema.{group}").__doc__ or "").splitlines()[0]
    meaning = text.partition(": ")[2] or text
    return meaning[:1].upper() + meaning[1:]


def _option_meaning(group: str, option: str, names: Names) -> str:
    """The first line of its schema; where several options share one, or the file is the user's, its own headline."""
    path = names.options[group][option]
    entry = table(group).get(option)
    if entry is None or not path.is_relative_to(tree.shipped("configs")):
        return tree.headline(path)
    if sum(other.schema is entry.schema for other in table(group).values()) > 1:
        return tree.headline(path)
    return (entry.schema.__doc__ or "").splitlines()[0]
