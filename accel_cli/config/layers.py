"""Files that set many values at once: recipes, another run's run.yaml, and the user's own presets of options.

Each becomes a ``Layer``: which options it chooses, which values it sets. Layers lie over the defaults in order, and
values belong to the option that they were written for: they go when a later layer chooses another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from accel_cli.config import tree
from accel_cli.config.code import refuse_code
from accel_cli.config.names import Names
from accel_cli.config.parts import GROUPS, SEVERAL, table
from accel_cli.config.request import LENGTHS
from accel_cli.config.schema.sections import SECTIONS
from accel_cli.errors import ConfigError, Problem


@dataclass(frozen=True)
class Layer:
    label: str
    """The file, as a user would name it."""
    choices: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def spelling(self) -> dict[str, str]:
        """Full key -> how a problem with it is pointed at."""
        return {key: f"{self.label}: {key}={_short(value)}" for key, value in flat(self.values)}


def read_recipe(path: Path, names: Names) -> Layer:
    """Raises ConfigError with everything that is wrong with a recipe's names, SecurityError where it names code."""
    content = tree.read_yaml(path)
    label = _label(path)
    refuse_code(content, label)
    problems: list[Problem] = []
    choices = _choices(content.pop("defaults", None), label, names, problems)
    _check_values(content, label, names, problems)
    if problems:
        raise ConfigError(problems)
    train = content.get("train")
    if isinstance(train, dict) and any(train.get(key) is not None for key in LENGTHS):
        content["train"] = {**dict.fromkeys(LENGTHS), **train}
    return Layer(label, choices, content)


def read_base(path: Path, names: Names) -> Layer:
    """A resolved run.yaml as a layer."""
    content = tree.read_yaml(path)
    label = _label(path)
    refuse_code(content, label)
    content.pop("format_version", None)
    choices, values = {}, {}
    for key, part in content.items():
        if key in SEVERAL and isinstance(part, dict):
            held = part.get(SEVERAL[key]) or {}
            choices[key] = [str(name) for name in held] or ["none"]
            own = {name: value for name, value in part.items() if name not in (SEVERAL[key], "option")}
            values[key] = {**own, SEVERAL[key]: {name: _without_name(option) for name, option in held.items()}}
        elif key in GROUPS and isinstance(part, dict):
            choices[key] = [str(part.get("option"))]
            values[key] = _without_name(part)
        else:
            values[key] = part
    problems = [
        names.unknown(group, name, table(group), f"{label}: {group}={name}")
        for group, chosen in choices.items()
        for name in chosen
        if name not in table(group)
    ]
    _check_values(values, label, names, problems)
    if problems:
        raise ConfigError(problems)
    return Layer(label, choices, values)


def with_presets(layer: Layer, names: Names, spelling: dict[str, str]) -> list[Layer]:
    """The layer, choosing only accel's own options, after a layer for each of the user's own that it chose."""
    before: list[Layer] = []
    choices = dict(layer.choices)
    for group, chosen in layer.choices.items():
        where = spelling.get(group) or f"{layer.label}: {group}={','.join(chosen)}"
        presets = {name: _preset(group, name, names, where) for name in chosen}
        starts = [next(iter(preset.choices.values()))[0] if preset else name for name, preset in presets.items()]
        if len(set(starts)) != len(starts):
            raise ConfigError(Problem(where, f"sets {group}={starts[0]} twice", "keep one of them"))
        choices[group] = starts
        before += [preset for preset in presets.values() if preset]
    layer = replace(layer, choices=choices)
    return [Layer("", choices), *(replace(preset, choices={}) for preset in before), layer] if before else [layer]


def _preset(group: str, name: str, names: Names, where: str) -> Layer | None:
    """The values of the user's own file for an option, as a layer that chooses the option it starts from.

    None where the option is accel's own. A file of hers says ``option: sgd``, or is named as one of accel's options.
    """
    path = names.options[group][name]
    if path.is_relative_to(tree.shipped("configs")):
        return None
    content = tree.read_yaml(path)
    label = _label(path)
    refuse_code(content, label)
    start = content.pop("option", name)
    if start == name and name not in table(group):
        known = ", ".join(table(group))
        why = f"{label} does not say which option it starts from"
        raise ConfigError(Problem(where, why, f"write option: {names.defaults[group]} in it, or another of {known}"))
    if start not in table(group):
        raise ConfigError(names.unknown(group, str(start), table(group), f"{label}: option={start}", "option"))
    values = {SEVERAL[group]: {start: content}} if group in SEVERAL else content
    return Layer(label, {group: [start]}, {group: values})


def final_choices(layers: Sequence[Layer], defaults: dict[str, str]) -> dict[str, list[str]]:
    """The options that hold after all layers."""
    chosen = {group: [name] for group, name in defaults.items()}
    for layer in layers:
        chosen.update(layer.choices)
    return chosen


def without_replaced(layers: Sequence[Layer], defaults: dict[str, str]) -> list[Layer]:
    """The layers less the values of options that a later layer replaced."""
    final = final_choices(layers, defaults)
    kept = []
    for index, layer in enumerate(layers):
        here = final_choices(layers[: index + 1], defaults)
        values = {}
        for key, part in layer.values.items():
            if key in SEVERAL and isinstance(part, dict) and isinstance(part.get(SEVERAL[key]), dict):
                held = {
                    name: v for name, v in part[SEVERAL[key]].items() if name in final[key] or name not in here[key]
                }
                values[key] = {**part, SEVERAL[key]: held}
            elif key not in final or key in SEVERAL or here[key] == final[key]:
                values[key] = part
        kept.append(replace(layer, values=values))
    return kept


def flat(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full key and value of every leaf; an empty section is a leaf."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _choices(defaults: Any, label: str, names: Names, problems: list[Problem]) -> dict[str, list[str]]:
    """``defaults: [override /strategy: ddp]`` -> {"strategy": ["ddp"]}."""
    chosen: dict[str, list[str]] = {}
    how = "write defaults: as a list of - override /strategy: ddp"
    if not isinstance(defaults, list | None):
        problems.append(Problem(f"{label}: defaults", "is not a list", how))
        return chosen
    for item in defaults or ():
        if item == "_self_":
            continue
        if not isinstance(item, dict):
            problems.append(Problem(f"{label}: defaults: {item}", "does not say which option of which group", how))
            continue
        for key, value in item.items():
            group = str(key).removeprefix("override").strip().lstrip("/")
            options = [str(name) for name in value] if isinstance(value, list) else [str(value)]
            where = f"{label}: {group}={','.join(options)}"
            if group not in names.options:
                problems.append(names.unknown_key(group, where))
            elif group in chosen:
                problems.append(Problem(where, f"{group} is chosen twice in one file", "keep one of them"))
            elif group not in SEVERAL and len(options) != 1:
                problems.append(Problem(where, f"{group} takes one option, not a list", f"write {group}: one of them"))
            else:
                known = names.options[group]
                problems += [names.unknown(group, n, known, where, group) for n in options if n not in known]
                chosen[group] = options or ["none"]
    return chosen


def _check_values(content: dict[str, Any], label: str, names: Names, problems: list[Problem]) -> None:
    for key, part in content.items():
        where = f"{label}: {key}"
        if not isinstance(key, str) or "." in key:
            problems.append(Problem(where, "a file nests its keys", f"write {str(key).replace('.', ': {')}: ..."))
        elif key in names.options and not isinstance(part, dict):
            fix = f"write defaults: [override /{key}: {_short(part)}] above the values"
            problems.append(Problem(f"{where}={_short(part)}", "an option is chosen under defaults", fix))
        elif key in SECTIONS and not isinstance(part, dict):
            fix = f"write {key}: with keys below it, such as {next(iter(SECTIONS[key].model_fields))}"
            problems.append(Problem(f"{where}={_short(part)}", f"{key} is a section of several keys", fix))
        elif key not in names.tops or key == "recipe":
            problems.append(names.unknown_key(key, where))
        else:
            problems += _wrong_keys(flat(part, f"{key}."), label, names)


def _wrong_keys(leaves: Iterable[tuple[str, Any]], label: str, names: Names) -> Iterator[Problem]:
    for key, value in leaves:
        if problem := names.key_problem(key, f"{label}: {key}={_short(value)}"):
            yield problem


def _without_name(option: Any) -> Any:
    return {k: v for k, v in option.items() if k != "option"} if isinstance(option, dict) else option


def _label(path: Path) -> str:
    path = path.absolute()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return str(value)[:60]
