"""One name, three places: every option is a commented YAML, a row with a schema, and an implementation that exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml

from accel_cli.config import tree
from accel_cli.config.parts import GROUPS, SEVERAL, own_keys, table
from accel_cli.config.schema.sections import SECTIONS

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"on", "off", "yes", "no", "true", "false", "null", "y", "n", "~"}
OPTIONS = [(group, option) for group in GROUPS for option in table(group)]


def names_of(path: Path) -> set[str]:
    """What a module defines at its top level, by its text alone."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def test_groups_are_folders_and_tables() -> None:
    configs = tree.shipped("configs")
    assert {path.name for path in configs.iterdir() if path.is_dir()} == set(GROUPS)
    assert {path.stem for path in (ROOT / "accel_cli/config/schema").glob("*.py")} - {
        "__init__",
        "base",
        "mesh",
        "sections",
    } == set(GROUPS)
    listed = yaml.safe_load((configs / "train.yaml").read_text())["defaults"]
    assert [next(iter(item)) for item in listed if item != "_self_"] == list(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_every_file_has_a_row_and_every_row_a_file(group: str) -> None:
    assert set(tree.options(group)) == set(table(group))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_is_whole(group: str, option: str) -> None:
    path, entry = tree.options(group)[option], table(group)[option]
    lines = path.read_text(encoding="utf-8").splitlines()
    content = tree.read_yaml(path)
    several = group in SEVERAL
    assert option not in FORBIDDEN
    assert re.fullmatch(r"[a-z][a-z0-9_]*", option)
    if several:
        package = group if option == "none" else f"{group}.{SEVERAL[group]}.{option}"
        assert lines.pop(0) == f"# @package {package}"
    assert lines[0].startswith("# "), "the first line says what it is and the command that uses it"
    assert re.search(rf"accel \w+ .*{group}(=\[?{option}|\.)", lines[0]), lines[0]
    assert len(lines) <= 20
    if several and option == "none":
        assert content == {SEVERAL[group]: {}}
    else:
        assert set(content) == set(entry.schema.model_fields) - {"option"}
    for key, field in entry.schema.model_fields.items():
        assert key == "option" or field.description, key
        assert field.is_required(), f"{key}: defaults live in YAML"
    assert (entry.schema.__doc__ or "").strip()
    module, name = entry.implementation.split(":")
    assert name in names_of(ROOT / (module.replace(".", "/") + ".py"))
    assert module.startswith(f"accel_cli.{group}.")


def test_sections_are_whole() -> None:
    content = tree.read_yaml(tree.shipped("configs") / "train.yaml")
    beside = {group: own for group in SEVERAL if (own := own_keys(group)) is not None}
    assert set(content) == {"defaults", *SECTIONS, *beside}
    for name, section in {**SECTIONS, **beside}.items():
        assert set(content[name]) == set(section.model_fields)
        assert all(field.description and field.is_required() for field in section.model_fields.values())


def test_every_value_of_the_tree_has_a_comment() -> None:
    for path in tree.shipped("configs").rglob("*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"\s*[a-z_0-9]+: \S", line) and not re.match(r"\s*[a-z]+: \{\}$", line):
                assert "#" in line, f"{path.name}: {line}"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "accel_cli").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_schemas_are_light() -> None:
    for group in GROUPS:
        source = Path(str(importlib.import_module(f"accel_cli.config.schema.{group}").__file__)).read_text()
        assert not re.search(r"^\s*(import|from) (torch|numpy)", source, re.MULTILINE)


def test_the_readme_shows_every_folder() -> None:
    readme = ROOT / "README.md"
    if not readme.exists() or "accel_cli/" not in readme.read_text():
        pytest.skip("the README has no tree yet")
    text = readme.read_text()
    tops = {
        "configs",
        "recipes",
        "scripts",
        "tests",
        *(p.parent.name for p in (ROOT / "accel_cli").glob("*/__init__.py")),
    }
    assert {top for top in tops if f"{top}/" not in text} == set()
