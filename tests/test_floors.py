"""Imports go down only, without circles; heavy ones come late; nothing hides in a drawer called utils."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from accel_cli.config.parts import GROUPS

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "accel_cli").rglob("*.py"))
}
FLOORS = {
    **dict.fromkeys(("config", "world", "errors", "description", "structure", "published"), 0),
    **dict.fromkeys(set(GROUPS) - {"launch"}, 1),
    "engine": 2,
    **dict.fromkeys(("launch", "worker", "analysis"), 3),
    **dict.fromkeys(("cli", "api", "__main__", ""), 4),
}
"""The doors for people and for Python stand on one floor; the launch group is implemented by launch/ itself."""
LATE_IMPORTS = {"accel_cli"}
"""Modules beside cli/ that import inside functions: the package itself, so that importing it imports no torch."""
ONLY_IMPORTERS = {"hydra": {"accel_cli.config.compose"}}
DRAWERS = {"utils", "util", "common", "helpers", "misc"}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(module: str) -> list[tuple[str, bool]]:
    """(imported module, whether inside a function) of a module; type-checking imports count as the others."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    inner = {n for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, node in inner) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name if name in FILES else node.module, node in inner) for name in names]
    return found


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module: str) -> None:
    here = part_of(module)
    for target, late in imports(module):
        if late and here != "cli":
            assert module in LATE_IMPORTS, f"{module} imports {target} inside a function"
        for library, importers in ONLY_IMPORTERS.items():
            assert target.split(".")[0] != library or module in importers, f"{module} imports {library}"
        there = part_of(target)
        if target.split(".")[0] != "accel_cli" or here == there or (not here and late):
            continue
        if there:
            assert FLOORS[there] <= FLOORS[here], f"{module} imports {target}, which is above it"
        if here in GROUPS and there in GROUPS:
            pytest.fail(f"{module} imports another part: {target}")
    assert not DRAWERS & set(module.split("."))


def test_no_circles() -> None:
    seen: dict[str, str] = {}

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in seen:
            for target, late in imports(module):
                if target in FILES and target != module and not late and target != "accel_cli":
                    walk(target, (*path, module))
            seen[module] = "done"

    for module in FILES:
        walk(module, ())


@pytest.mark.parametrize(
    "module", ["accel_cli", "accel_cli.cli.main", "accel_cli.config.plan", "accel_cli.config.rules"]
)
def test_torch_is_not_imported_before_it_is_needed(module: str) -> None:
    heavy = "{'torch', 'torchvision', 'numpy', 'sklearn', 'transformers', 'timm'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"
