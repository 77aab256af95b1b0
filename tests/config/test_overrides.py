"""What may be typed: spellings of groups, lists, deletions, recipes, the user's own options, references."""

from __future__ import annotations

from pathlib import Path

import pytest
from doors import refused, through

from accel_cli.config import tree
from accel_cli.config.axes import grid, words
from accel_cli.config.compose import axes
from accel_cli.config.parts import GROUPS
from accel_cli.config.run import Run

DEFAULTS = through().run


def a_second_option(group: str) -> str:
    return max(tree.options(group))


@pytest.mark.parametrize("group", GROUPS)
def test_both_spellings_of_a_group_mean_the_same(group: str) -> None:
    option = a_second_option(group)

    def outcome(word: str) -> object:
        try:
            return through(word).run
        except Exception as error:
            return str(error).replace("+", "")

    assert outcome(f"{group}={option}") == outcome(f"+{group}={option}") == outcome(f"++{group}={option}")


@pytest.mark.parametrize(("word", "group", "held"), [
    ("augment=[basic]", "augment", ["basic"]),
    ("+augment=basic", "augment", ["basic"]),
    ("augment=[]", "augment", []),
    ("~augment", "augment", []),
    ("tracking=[tensorboard]", "tracking", ["tensorboard"]),
    ("tracking=none", "tracking", []),
])  # fmt: skip
def test_groups_of_several_options(word: str, group: str, held: list[str]) -> None:
    assert list(getattr(through(word).run, group)) == held


def test_a_deleted_group_is_its_none() -> None:
    assert through("~stopping").run.stopping.option == "none"
    assert refused("~model")[0].fix == f"try model={DEFAULTS.model.option}"


def test_values_of_an_option_of_several() -> None:
    run = through("augment=[basic]", "augment.transforms.basic.flip=0.25").run
    assert run.augment["basic"].flip == 0.25
    (problem,) = refused("augment.transforms.basic.flip=0.25")
    assert problem.fix == "add augment=basic"


def test_a_reference_is_resolved_and_may_not_run_in_circles() -> None:
    assert through("train.seed=7", "train.base_batch=${train.seed}").run.train.base_batch == 7
    assert refused("train.seed=${train.base_batch}", "train.base_batch=${train.seed}")[0].why == "refers to itself"
    assert refused("train.seed=${train.sed}")[0].fix == "did you mean ${train.seed} ?"
    for word in ("train.seed=${train}", "train.seed=${oc.env:HOME}", "train.seed=${train.${x}}", "model.args=${model}"):
        assert refused(word)


def test_a_stated_length_takes_the_place_of_the_default() -> None:
    train = through("train.steps=7").run.train
    assert (train.epochs, train.steps, train.samples) == (None, 7, None)
    assert refused("train.steps=7", "train.samples=9")[0].why == "one run has one length"
    assert refused("train.epochs=null")[0].fix == "try train.epochs=1"


def test_a_recipe_by_name_and_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults:\n  - override /optimizer: sgd\ntrain:\n  steps: 9\noptimizer:\n  momentum: 0.5\n")
    run = through(f"+recipe={path}").run
    assert (run.optimizer.option, run.optimizer.momentum, run.train.steps, run.train.epochs) == ("sgd", 0.5, 9, None)
    assert through(f"recipe={path}", "optimizer.momentum=0.1").run.optimizer.momentum == 0.1
    for name in tree.recipes():
        by_name, by_path = (outcome(word) for word in (f"+recipe={name}", f"+recipe={tree.recipes()[name]}"))
        assert by_name == by_path


def outcome(word: str) -> Run | list[object]:
    try:
        return through(word).run
    except Exception as error:
        return [problem.fix for problem in getattr(error, "problems", [error])]


def test_values_of_a_recipe_go_with_the_option_they_were_written_for(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults:\n  - /optimizer: sgd\n  - /augment: [basic]\n  - _self_\n"
                    "optimizer: {momentum: 0.5}\naugment: {transforms: {basic: {flip: 0.1}}}\n")  # fmt: skip
    run = through(f"+recipe={path}", "optimizer=adamw", "~augment").run
    assert run.optimizer.option == "adamw"
    assert run.augment == {}


def test_what_is_wrong_in_a_recipe_is_said_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("defaults:\n  - override /optimzer: sgd\n  - nonsense\nstrategy: ddp\ntrian: {steps: 3}\n"
                    "train: 5\nmodel.width: 3\n")  # fmt: skip
    problems = refused(f"+recipe={path}", "train.seed=-1")
    assert len(problems) == 7
    assert sum(str(path) in problem.where for problem in problems) == 6
    path.write_text("train: {sed: 3, seed: -3}\n")
    assert [p.where for p in refused(f"+recipe={path}")] == [f"{path}: train.seed=-3", f"{path}: train.sed=3"]


def test_the_users_own_option_starts_from_one_of_ours(tmp_path: Path) -> None:
    for folder in ("optimizer", "augment", "recipes"):
        (tmp_path / folder).mkdir()
    (tmp_path / "optimizer/mine.yaml").write_text("# mine\noption: sgd\nmomentum: 0.75\n")
    (tmp_path / "optimizer/bare.yaml").write_text("momentum: 0.75\n")
    (tmp_path / "optimizer/typo.yaml").write_text("option: sdg\n")
    (tmp_path / "optimizer/wrong.yaml").write_text("option: sgd\nmomentm: 0.75\n")
    (tmp_path / "optimizer/adam.yaml").write_text("beta1: 0.5\n")
    (tmp_path / "augment/mild.yaml").write_text("option: basic\nflip: 0.125\n")
    (tmp_path / "recipes/own.yaml").write_text("defaults: [override /optimizer: mine]\noptimizer: {nesterov: true}\n")
    here = [tmp_path]
    ours = through("optimizer=sgd").run.optimizer
    mine = through("+optimizer=mine", config_dirs=here).run.optimizer
    assert mine == ours.model_copy(update={"momentum": 0.75})
    assert through("optimizer=mine", "optimizer.momentum=0.5", config_dirs=here).run.optimizer.momentum == 0.5
    assert through("+recipe=own", config_dirs=here).run.optimizer == mine.model_copy(update={"nesterov": True})
    assert through("optimizer=adam", config_dirs=here).run.optimizer.beta1 == 0.5
    assert through("augment=[mild]", config_dirs=here).run.augment["basic"].flip == 0.125
    assert "option: adamw" in refused("optimizer=bare", config_dirs=here)[0].fix
    assert refused("optimizer=typo", config_dirs=here)[0].fix == "did you mean option=sgd ?"
    assert refused("optimizer=wrong", config_dirs=here)[0].where.endswith("wrong.yaml: optimizer.momentm=0.75")
    assert refused("augment=[mild,basic]", config_dirs=here)
    assert refused("optimizer=min", config_dirs=here)[0].fix == "did you mean optimizer=mine ?"
    assert refused(config_dirs=[tmp_path / "absent"])[0].why == "no such folder"


def test_a_sweep_needs_its_flag_and_is_expanded() -> None:
    assert refused("train.seed=1,2")[0].fix == "add -m, or try train.seed=1"
    parts = axes(["train.seed=1,2", "+optimizer=sgd,adam", "train.epochs=1"])
    assert [words(parts, point) for point in grid(parts)] == [
        [seed, optimizer, "train.epochs=1"]
        for seed in ("train.seed=1", "train.seed=2")
        for optimizer in ("optimizer=sgd", "optimizer=adam")
    ]
    assert len(list(grid(axes(["train.seed=range(1,5)", "optimizer=glob(adam*)"])))) == 4 * 4
