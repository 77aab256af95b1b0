"""A run as a recipe of its own: what was chosen and set for it, and a header that says what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from accel_cli.config.machine import detect
from accel_cli.config.parts import SEVERAL
from accel_cli.config.plan import Plan


def write_recipe(path: Path, planned: Plan, content: dict[str, Any]) -> None:
    """``content`` is tune.json's: what it claims is what was measured."""
    body = yaml.safe_dump(recipe(planned), sort_keys=False, allow_unicode=True, width=10_000)
    path.write_text("".join(f"# {line}\n" for line in header(path, planned, content)) + body, encoding="utf-8")


def recipe(planned: Plan) -> dict[str, Any]:
    """The options that differ from the defaults, and every value that a file or the command line set."""
    composed = planned.composed
    found: dict[str, Any] = {"defaults": []}
    for group, options in composed.choices.items():
        if options != [composed.names.defaults[group]]:
            chosen = options if group in SEVERAL else options[0]
            found["defaults"].append({f"override /{group}": chosen})
    found["defaults"].append("_self_")
    for key in composed.spelling:
        parts = key.split(".")
        if len(parts) == 1:
            continue
        held: Any = composed.tree
        try:
            for part in parts:
                held = held[part]
        except (KeyError, TypeError):  # taken away again
            continue
        node = found
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = held
    return found


def header(path: Path, planned: Plan, content: dict[str, Any]) -> list[str]:
    chosen, machine = content["chosen"], detect()
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    code = "".join(f" --plugin {name}" for name in planned.plugins)
    devices = f"{len(machine.gpus)} x {machine.gpus[0].name}" if machine.gpus else machine.cpu_name
    name = f"{planned.run.model.option} on {planned.run.data.option}, tuned for {content['objective']}."
    lines = [f"{name}        accel train +recipe={shown}{code}", f"On {machine.cores} cores, {devices}:"]
    if ratio := chosen["ratio"]:
        rounds = len(content["stages"].get("bought", ()))
        between = _interval(ratio, ".3f")
        lines.append(f"a step takes {ratio['value']:.3f} of its time before{between}, n={rounds} rounds;")
    if metric := chosen["metric"]:
        difference = metric["difference"]
        lines.append(
            f"{metric['name']} changes by {difference['value']:+.4f}{_interval(difference, '+.4f')}, "
            f"n={len(metric['values'])} seeds."
        )
    return [*lines, f"From: {content['command']}"]


def _interval(found: dict[str, Any], form: str) -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return f" ({found['low']:{form}} to {found['high']:{form}})"
