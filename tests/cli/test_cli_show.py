"""accel show: who set a value, what it overrode, and what may stand at a key."""

import json
from pathlib import Path
from typing import Any

import pytest

from accel_cli.cli.explain import explain, lookup
from accel_cli.cli.main import main
from accel_cli.config.layers import flat
from accel_cli.config.plan import plan

COMMANDS = [
    [],
    ["strategy=ddp", "optimizer=sgd", "optimizer.momentum=0.5", "train.steps=7", "task=auto"],
    ["+recipe=stdlib_gpt", "optimizer.learning_rate=3e-4", "augment=none", "precision=auto"],
    ["augment=[basic]", "augment.transforms.basic.flip=0.25", "tracking=tensorboard", "launch.processes=1"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words) or "defaults" for words in COMMANDS])
def test_the_first_layer_is_the_value_that_holds(words: list[str]) -> None:
    planned = plan(words)
    for key, value in flat(planned.run.to_tree()):
        if key.endswith(".option") or "." not in key or lookup(planned.run.to_tree(), key) == {}:
            continue
        rows = explain(planned, key)
        assert rows, key
        assert rows[0]["value"] == value, (key, rows)


def layers(capsys: pytest.CaptureFixture[str], key: str, *words: str) -> list[tuple[Any, str]]:
    assert main(["show", "--explain", key, "--json", *words]) == 0
    return [(row["value"], row["by"]) for row in json.loads(capsys.readouterr().out)["layers"]]


def test_every_layer_of_a_value_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("defaults: [override /optimizer: sgd]\noptimizer: {momentum: 0.8}\n")
    found = layers(capsys, "optimizer.momentum", f"+recipe={recipe}", "optimizer.momentum=0.7")
    assert found == [(0.7, "the command line"), (0.8, str(recipe)), (0.9, "configs/optimizer/sgd.yaml")]
    found = layers(capsys, "optimizer", f"+recipe={recipe}")
    assert found == [("sgd", str(recipe)), ("adamw", "configs/train.yaml")]


def test_a_decision_names_its_reason_and_what_was_auto(capsys: pytest.CaptureFixture[str]) -> None:
    found = layers(capsys, "hardware.threads", "strategy=ddp", "hardware=cpu")
    assert found[0][1].startswith("auto: ")
    assert found[1] == ("auto", "configs/hardware/cpu.yaml")
    found = layers(capsys, "task")
    assert found[0][0] == "classification"
    assert found[1] == ("auto", "configs/train.yaml")


def test_a_preset_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "optimizer/mine.yaml"
    path.parent.mkdir()
    path.write_text("# My own.\noption: sgd\nmomentum: 0.8\n")
    words = ["optimizer=mine", "--config-dir", str(tmp_path)]
    assert [row[0] for row in layers(capsys, "optimizer", *words)] == ["sgd", "mine", "adamw"]
    assert layers(capsys, "optimizer.momentum", *words)[0] == (0.8, str(path))


def test_another_runs_settings_are_a_layer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from accel_cli.config import run as run_file

    run_file.write(plan(["train.global_batch=32"]).run, tmp_path / "run.yaml")
    found = layers(capsys, "train.global_batch", "--run", str(tmp_path))
    assert found == [(32, str(tmp_path / "run.yaml")), (64, "configs/train.yaml")]


@pytest.mark.parametrize(
    ("key", "meant"),
    [("optimizer.learning_rat", "optimizer.learning_rate"), ("strateg", "strategy"), ("train", "train.")],
)
def test_an_unknown_key_is_exit_2_with_the_nearest(key: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "--explain", key]) == 2
    assert f"did you mean {meant}" in capsys.readouterr().err


def test_keys_have_types_ranges_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["show", "--help-keys", "--json", "data=csv", "data.path=" + __file__, "data.target=x", "model=mlp"]) == 0
    )
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)["keys"]}
    assert all(row["meaning"] and row["type"] for row in rows.values())
    assert rows["train.epochs"]["type"] == "number > 0 or null"
    assert rows["train.seed"]["type"] == "whole number >= 0 and < 4294967296"
    assert rows["train.determinism"]["type"] == "one of default, exact"
    assert rows["launch.processes"]["type"] == "whole number >= 1 or auto"
    assert rows["data.path"]["type"] == "text, to be given"
    assert rows["data.ignore"]["type"] == "list of text"
    assert rows["profile.enabled"]["type"] == "true or false"
    assert not [key for key, row in rows.items() if "[" in row["type"] or "class" in row["type"].split()]
