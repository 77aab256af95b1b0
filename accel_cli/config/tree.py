"""The option tree on disk: where configs and recipes are, and reading YAML from strangers safely."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from accel_cli.config.parts import GROUPS
from accel_cli.errors import ConfigError, Problem

LARGEST_FILE = 1 << 20
LARGEST_TREE = 100_000
DEEPEST = 50

_PACKAGE = Path(__file__).parents[1]
_Fast: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def shipped(name: str) -> Path:
    """The folder ``configs`` or ``recipes``: beside the package in a checkout, inside it in a wheel."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def folders(name: str, extra: Sequence[Path] = ()) -> list[Path]:
    """Where options (``configs``) or ``recipes`` are looked for: ``--config-dir`` folders first, then ours."""
    own = [folder / "recipes" if name == "recipes" else folder for folder in extra]
    return [folder for folder in own if folder.is_dir()] + [shipped(name)]


def options(group: str, extra: Sequence[Path] = ()) -> dict[str, Path]:
    """Option name -> file, of one group."""
    found: dict[str, Path] = {}
    for folder in reversed(folders("configs", extra)):
        found |= _shipped_options(group) if folder == shipped("configs") else _by_name(folder / group)
    return found


@cache
def _shipped_options(group: str) -> dict[str, Path]:
    return _by_name(shipped("configs") / group)


def _by_name(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipes(extra: Sequence[Path] = ()) -> dict[str, Path]:
    """Recipe name -> file."""
    found: dict[str, Path] = {}
    for folder in reversed(folders("recipes", extra)):
        found |= _by_name(folder)
    return found


def all_options(extra: Sequence[Path] = ()) -> dict[str, dict[str, Path]]:
    return {group: options(group, extra) for group in GROUPS}


def headline(path: Path) -> str:
    """The first comment of a YAML that is not a directive: what it is, in one line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").split("  ")[0].strip()
    return ""


def read_yaml(path: Path, where: str = "") -> dict[str, Any]:
    """A mapping from a YAML file that may come from anyone.

    Refuses, as a ConfigError in well under a second: a missing or unreadable file, one that is not a regular file,
    larger than 1 MiB, not UTF-8, not YAML, nested deeper than 50, with duplicate keys, or with aliases that expand
    beyond 100,000 nodes. No tag constructs a Python object.
    """
    where = where or str(path)
    try:
        if not path.exists():
            raise ConfigError(Problem(where, "no such file", "check the path"))
        if not path.is_file():
            raise ConfigError(Problem(where, "not a regular file", "give the path of a YAML file"))
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(
            Problem(where, f"cannot be read: {error.strerror}", "check its name and permissions")
        ) from None
    if len(raw) > LARGEST_FILE:
        raise ConfigError(Problem(where, "larger than 1 MiB", "a configuration is a page; split it or check the path"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(where, f"not UTF-8 at byte {error.start}", "save it as UTF-8")) from None
    try:
        _measure(text)
        tree = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(Problem(where, f"not valid YAML: {_first_line(error)}", "mend the file")) from None
    except ValueError as error:
        raise ConfigError(Problem(where, str(error), "write it out plainly")) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(Problem(where, f"holds a {type(tree).__name__}, not keys with values", "write key: value"))
    return tree


def _measure(text: str) -> None:
    """Walk the events, without recursion, counting nodes as if aliases were written out."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []
    total = 0
    for event in yaml.parse(text, Loader=_Fast):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"alias *{event.anchor} refers to itself")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, total))
            total += 1
            if len(open_nodes) > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST}")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = total - before
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if total > LARGEST_TREE:
            raise ValueError(f"expands beyond {LARGEST_TREE:,} values")


class _Loader(_Fast):  # type: ignore[misc]
    """SafeLoader that refuses duplicate keys and reads 1e-3 as a number, as YAML 1.2 and Hydra do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if not isinstance(key, str):
                raise ValueError(f"a key that is no word in line {key_node.start_mark.line + 1}")
            if key in seen and key != "<<":
                raise ValueError(f"duplicate key {key} in line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:timestamp",)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _first_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{problem} in line {mark.line + 1}" if mark else str(problem)


def flatten(tree: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of a tree of settings as (dotted key, value as it is written in YAML)."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            inner = prefix if key == "option" and prefix else f"{prefix}.{key}".lstrip(".")
            yield from flatten(value, inner)
    else:
        yield prefix, tree if isinstance(tree, str) else json.dumps(tree, default=str)
