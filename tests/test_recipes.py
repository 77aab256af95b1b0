"""Law: every recipe composes, checks, is what its golden file says, and trains two steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ranks import train_ranks

from accel_cli.config import tree
from accel_cli.config.compose import compose
from accel_cli.config.plan import plan

GOLDEN = Path(__file__).parent / "golden"
RECIPES = {"default": [], **{name: [f"+recipe={name}"] for name in tree.recipes()}}
OWN = {"cifar10_resnet": "data.root", "shakespeare_gpt": "data.path"}
"""Recipes over a file of the user's own, and the key that names it."""
STAND_IN = {
    "cifar10_resnet": ["data=synthetic", "data.shape=image", "data.channels=3", "data.height=32", "data.width=32"],
    "shakespeare_gpt": ["data=stdlib_text", "data.max_bytes=100000"],
    "stdlib_gpt": ["data.max_bytes=100000"],
}
SHORT = ["train.epochs=null", "train.steps=2", "evaluate.every=2", "checkpoint.every=2"]


def test_goldens_are_of_recipes_that_exist() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_composes_to_its_golden_file(name: str, pytestconfig: pytest.Config) -> None:
    found = yaml.safe_dump(compose(RECIPES[name]).tree, sort_keys=False)
    path = GOLDEN / f"{name}.yaml"
    if pytestconfig.getoption("--update-golden"):
        path.write_text(found)
    assert path.read_text() == found, "if it is meant: scripts/test tests/test_recipes.py --update-golden"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_checks(name: str, tmp_path: Path) -> None:
    words = list(RECIPES[name])
    if key := OWN.get(name):
        (tmp_path / "file").write_text("some text")
        words.append(f"{key}={tmp_path if key == 'data.root' else tmp_path / 'file'}")
    plan(words)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_two_steps(name: str, tmp_path: Path) -> None:
    words = [*RECIPES[name], *STAND_IN.get(name, []), *SHORT]
    world_size = 2 if name == "ci_cpu" else 1
    found = train_ranks(words, tmp_path / "run", world_size)
    assert (found["status"], found["steps"], found["world_size"]) == ("completed", 2, world_size)


@pytest.mark.parametrize("path", tree.recipes().values(), ids=lambda path: path.stem)
def test_a_header_is_a_claim(path: Path) -> None:
    """Command, hardware, time and metric with its n, before the first key."""
    head = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"+recipe={path.stem}" in head
    for word in ("cores", " s ", "n="):
        assert word in head, f"the header does not say {word!r}"
