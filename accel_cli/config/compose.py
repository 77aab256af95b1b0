"""Overrides and a recipe in, one plain resolved tree out. The only importer of Hydra.

Hydra's own grammar holds, with two differences that users asked for: ``strategy=ddp`` and ``+strategy=ddp`` both work for
every group, and a key that does not exist is found by the schema, with suggestions, instead of being added.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.core_plugins.structured_config_source import StructuredConfigSource
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from accel_cli.config import tree
from accel_cli.config.names import Names
from accel_cli.config.parts import SEVERAL
from accel_cli.errors import ConfigError, Problem, SecurityError

LARGEST_SWEEP = 10_000
_RESOLVER = re.compile(r"\$\{[^}]*:")
_CODE_KEYS = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")


@dataclass(frozen=True)
class Request:
    """What was typed, taken apart: which options, which values, which recipes."""

    choices: dict[str, list[str]] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """Full key -> the override as typed."""
    recipes: list[Path] = field(default_factory=list)
    deleted: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Composed:
    """The tree as plain containers, and where each part of it came from."""

    tree: dict[str, Any]
    choices: dict[str, list[str]]
    request: Request
    names: Names
    problems: list[Problem]
    """Of names and grammar; the tree is composed without the words that have one."""


def expand(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> list[list[str]]:
    """Every point of a sweep in Hydra's grammar (``a=1,2``, ``range``, ``choice``, ``glob``), in order."""
    names = Names(config_dirs)
    axes: list[list[str]] = []
    for text in overrides:
        override = _parse(text)
        if not override.is_sweep_override():
            axes.append([text])
            continue
        key = override.get_key_element().lstrip("+")
        if override.is_discrete_sweep() or override.is_range_sweep() or override.is_choice_sweep():
            axes.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif override.is_glob_sweep() and key in names.options:
            chosen = override.value().filter(list(names.options[key]))  # type: ignore[union-attr]
            axes.append([f"{key}={value}" for value in chosen])
        else:
            raise ConfigError(Problem(text, "an interval has no points", f"try {key}=0.1,0.2,0.3"))
    count = 1
    for axis in axes:
        count *= len(axis)
    if count == 0 or count > LARGEST_SWEEP:
        raise ConfigError(Problem("sweep", f"{count:,} points", f"between 1 and {LARGEST_SWEEP:,}"))
    return [list(point) for point in itertools.product(*axes)]


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = (), base: Path | None = None) -> Composed:
    """Compose one run from the command line's words, over the defaults or over another run's ``base`` run.yaml.

    Problems of the first door (names and grammar) are returned with the tree, so that the next door can add its own.
    Raises SecurityError for words that would run code, ConfigError where nothing can be composed.
    """
    for folder in config_dirs:
        if not folder.is_dir():
            raise ConfigError(Problem(f"--config-dir {folder}", "no such folder", "check the path"))
        for path in sorted(folder.glob("*/*.yaml")):
            _refuse_code(tree.read_yaml(path), str(path))
    names = Names(config_dirs)
    request, problems = _take_apart(overrides, names)
    recipes = []
    for path in request.recipes:
        content = tree.read_yaml(path)
        _refuse_code(content, str(path))
        wrong = _recipe_problems(content, str(path), names)
        problems += wrong
        recipes += [] if wrong else [content]
    if base is not None:
        recipes.insert(0, _as_recipe(tree.read_yaml(base)))
    node, choices = _hydra(request, recipes, config_dirs)
    return Composed(_attach_names(node, choices), choices, request, names, problems)


def _as_recipe(node: dict[str, Any]) -> dict[str, Any]:
    """A resolved run.yaml as choices and values."""
    values: dict[str, Any] = {}
    defaults: list[Any] = []
    for key, part in node.items():
        if key in SEVERAL and isinstance(part, dict):
            held = part.get(SEVERAL[key]) or {}
            defaults.append({f"override /{key}": list(held) or ["none"]})
            values[key] = {SEVERAL[key]: {name: _without_name(option) for name, option in held.items()}}
        elif isinstance(part, dict) and "option" in part:
            defaults.append({f"override /{key}": part["option"]})
            values[key] = _without_name(part)
        elif key != "format_version":
            values[key] = part
    return {"defaults": defaults, **values}


def _without_name(option: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in option.items() if key != "option"}


def _parse(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except (HydraException, RecursionError) as error:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(Problem(text, "not an override", "write key=value, such as train.epochs=3")) from None
        reason = "the value is empty" if not value and not key else "its value is not in Hydra's grammar"
        detail = (
            str(error).splitlines()[-1].strip()[:60] if not isinstance(error, RecursionError) else "nested too deep"
        )
        raise ConfigError(
            Problem(text[:60], f"{reason}: {detail}", f"quote it: '{key[:40]}=\"{value[:40]}\"'")
        ) from None


def _take_apart(overrides: Sequence[str], names: Names) -> tuple[Request, list[Problem]]:
    request, problems = Request(), []
    for text in overrides:
        try:
            override = _parse(text)
            if problem := _take(override, text, request, names):
                problems.append(problem)
        except SecurityError:
            raise
        except ConfigError as error:
            problems.extend(error.problems)
    return request, problems


def _take(override: Override, text: str, request: Request, names: Names) -> Problem | None:
    """Put one override where it belongs, or say what is wrong with it."""
    key = (
        override.key_or_group.replace("/", ".") if not override.key_or_group.startswith("/") else override.key_or_group
    )
    if key.split(".")[0] == "hydra":
        return Problem(
            text,
            "hydra's own settings are not accel's",
            "see accel train --help for --run-dir, -m and --cfg job",
        )
    if override.package is not None:
        return Problem(text, "a package (@) is not part of an option's name", f"try {override.key_or_group}=...")
    if override.is_sweep_override():
        return Problem(text, "several values, and this is one run", f"add -m, or try {key}={_first_value(override)}")
    if any(part in _CODE_KEYS for part in key.split(".")):
        raise SecurityError(
            Problem(text, f"{key.split('.')[-1]} would run code by name", "use a factory: model.factory=pkg:Name")
        )
    if _RESOLVER.search(text):
        return Problem(text, "resolvers are not supported; ${key} is", "write the value")
    if key == "recipe":
        return _take_recipe(override, text, request, names)
    if key in names.options:
        return _take_choice(override, key, text, request, names)
    if key in request.values:
        return Problem(text, f"{key} is given twice: {request.values[key]}", "keep one of them")
    if problem := names.key_problem(key, text):
        return problem
    if override.is_delete():
        request.deleted[key] = text
        return None
    request.values[key] = text
    return None


def _take_recipe(override: Override, text: str, request: Request, names: Names) -> Problem | None:
    for name in _strings(override):
        path = Path(name).expanduser()
        if name.endswith((".yaml", ".yml")) or "/" in name:
            if not path.is_file():
                return Problem(text, "no such recipe file", "check the path, or accel list recipes")
        elif name in names.recipes:
            path = names.recipes[name]
        else:
            return names.unknown("recipe", name, names.recipes, text)
        request.recipes.append(path)
    return None


def _take_choice(override: Override, group: str, text: str, request: Request, names: Names) -> Problem | None:
    if group in request.choices:
        return Problem(text, f"{group} is chosen twice: {group}={','.join(request.choices[group])}", "keep one of them")
    if override.is_delete():
        chosen = ["none"] if "none" in names.options[group] else []
        if not chosen:
            return Problem(text, f"a run needs one {group}", f"try {group}={next(iter(names.options[group]))}")
    else:
        chosen = _strings(override)
    several = group in SEVERAL
    if not several and (len(chosen) != 1 or isinstance(override.value(), list)):
        return Problem(
            text,
            f"takes one option, not {len(chosen)}",
            f"try {group}={(chosen or list(names.options[group]))[0]}",
        )
    for name in chosen:
        if name not in names.options[group]:
            return names.unknown(group, name, names.options[group], text)
    if len(set(chosen)) != len(chosen):
        return Problem(text, "the same option twice", f"try {group}=[{','.join(dict.fromkeys(chosen))}]")
    request.choices[group] = chosen or ["none"]
    return None


def _strings(override: Override) -> list[str]:
    value = override.value()
    values = value if isinstance(value, list) else [value]
    return ["null" if v is None else str(getattr(v, "text", v)) for v in values]


def _first_value(override: Override) -> str:
    try:
        return next(iter(override.sweep_string_iterator()))
    except (StopIteration, HydraException, NotImplementedError, AttributeError):
        return "..."


def _recipe_problems(content: dict[str, Any], path: str, names: Names) -> list[Problem]:
    """A recipe may choose options and set values; nothing else."""
    problems = []
    for group, chosen in _recipe_choices(content).items():
        if group not in names.options:
            problems.append(names.unknown_key(group, f"{path}: {group}"))
            continue
        wrong = [name for name in chosen if name not in names.options[group]]
        problems += [names.unknown(group, n, names.options[group], f"{path}: {group}={n}") for n in wrong]
    for key in _flat(content):
        if key.split(".")[0] != "defaults" and (problem := names.key_problem(key, f"{path}: {key}")):
            problems.append(problem)
    return problems


def _recipe_choices(content: dict[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in content.get("defaults") or []:
        if item == "_self_" or not isinstance(item, dict):
            continue
        for key, value in item.items():
            group = str(key).removeprefix("override").strip().lstrip("/")
            found[group] = [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return found


def _refuse_code(content: Any, where: str) -> None:
    if isinstance(content, dict):
        for key, value in content.items():
            if key in _CODE_KEYS:
                raise SecurityError(
                    Problem(where, f"{key} would run code by name", "use a factory: package.module:name")
                )
            _refuse_code(value, where)
    elif isinstance(content, list):
        for value in content:
            _refuse_code(value, where)
    elif isinstance(content, str) and _RESOLVER.search(content):
        raise SecurityError(Problem(where, f"resolvers are not supported: {content[:50]}", "write the value"))


def _flat(content: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in content.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, full + ".")
        else:
            yield full


def _hydra(
    request: Request, recipes: list[dict[str, Any]], config_dirs: Sequence[Path]
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Let Hydra compose; return the resolved tree and the option chosen in every group."""
    store = ConfigStore.instance()
    store.repo.pop("recipe", None)
    for unused in ("launcher", "sweeper"):
        store.store(name="basic", node={}, group=f"hydra/{unused}")
    lines = []
    for index, content in enumerate(recipes):
        chosen = {f"override /{g}": v if g in SEVERAL else v[0] for g, v in _recipe_choices(content).items()}
        node = {**content, "defaults": [*({k: v} for k, v in chosen.items()), "_self_"]}
        store.store(name=f"r{index}", node=OmegaConf.create(node), group="recipe", package="_global_")
    if recipes:
        lines.append(f"+recipe=[{','.join(f'r{i}' for i in range(len(recipes)))}]")
    for group, options in request.choices.items():
        lines.append(f"{group}=[{','.join(options)}]" if group in SEVERAL else f"{group}={options[0]}")
    lines += ["++" + text.lstrip("+") for text in request.values.values()]
    lines += [f"~{key}" for key in request.deleted]

    # The three sources that composing needs. Looking for Hydra plugins would cost as much again, and import strangers' code.
    for source in (FileConfigSource, ImportlibResourcesConfigSource, StructuredConfigSource):
        SourcesRegistry.instance().register(source)
    search_path = ConfigSearchPathImpl()
    search_path.append("hydra", "pkg://hydra.conf")
    for folder in tree.folders("configs", config_dirs):
        search_path.append("accel", f"file://{folder}")
    search_path.append("schema", "structured://")
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("accel", search_path)
        config = hydra.compose_config("train", lines, RunMode.RUN, from_shell=False, with_log_configuration=False)
        choices = OmegaConf.to_container(config.hydra.runtime.choices)
        node = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
        return _resolved(node), {g: _choice(c) for g, c in choices.items() if "/" not in str(g) and g != "recipe"}  # type: ignore[union-attr]
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(_translate(error)) from None
    finally:
        GlobalHydra.instance().clear()


def _resolved(node: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(node, resolve=True, throw_on_missing=False)
    assert isinstance(found, dict)
    return found  # type: ignore[return-value]


def _choice(chosen: Any) -> list[str]:
    if isinstance(chosen, str) and chosen.startswith("["):
        return [name.strip() for name in chosen.strip("[]").split(",") if name.strip()]
    return [str(name) for name in chosen] if isinstance(chosen, list) else [str(chosen)]


def _translate(error: Exception) -> Problem:
    if isinstance(error, RecursionError):
        return Problem("configuration", "a value refers to itself", "write it out")
    key = getattr(error, "full_key", None) or "configuration"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    if "recursion" in str(error).lower() or "Recursive" in str(error):
        return Problem(str(key), "a value refers to itself", "write it out")
    return Problem(str(key), reason[:120], "see accel show for the composed tree")


def _attach_names(node: dict[str, Any], choices: dict[str, list[str]]) -> dict[str, Any]:
    """Each option learns its own name, under the key ``option``."""
    for group, chosen in choices.items():
        part = node.get(group)
        if group in SEVERAL:
            held = part.get(SEVERAL[group]) if isinstance(part, dict) else None
            for name, option in held.items() if isinstance(held, dict) else ():
                if isinstance(option, dict):
                    option["option"] = name
        elif isinstance(part, dict):
            part["option"] = chosen[0]
        elif part is None:
            node[group] = {"option": chosen[0]}
    return node
