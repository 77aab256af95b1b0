"""Runs whose transfer changes the model at borders: the same under ddp and fsdp, and a resume goes on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ranks import train_ranks
from safetensors.torch import load_file
from test_frozen_features import SHORT, losses, weights
from test_resume import assert_equal_runs, back_to

from accel_cli import load
from accel_cli.engine.bought import read

NET = [*SHORT, "model=cnn", "model.channels=[8,16]", "model.normalisation=group", "checkpoint.every=2"]
OPTIONS = {
    "lora": ["transfer=lora", "transfer.rank=2", "transfer.head_rate=2.0", "train.ema=0.9"],
    "dropout": ["transfer=lora", "transfer.rank=2", "transfer.dropout=0.3"],
    "gradual_unfreezing": ["transfer=gradual_unfreezing", "transfer.layer_decay=0.5", "transfer.times=2"],
    "low_rank": ["transfer=finetune", "compression=low_rank", "compression.passes.low_rank.start=0.3",
                 "compression.passes.low_rank.multiply_adds=0.4", "compression.passes.low_rank.energy=null"],
}  # fmt: skip


def words(option: str) -> list[str]:
    return list({word.partition("=")[0]: word for word in [*NET, *OPTIONS[option]]}.values())


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    train_ranks(list({w.partition("=")[0]: w for w in [*NET, "checkpoint.every=12"]}.values()), folder)
    return folder


def equal_but_for_the_end(one: Path, other: Path) -> None:
    first, second = (f / "checkpoints/finished/model.safetensors" for f in (one, other))
    if first.is_file():
        ours, theirs = load_file(first), load_file(second)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
@pytest.mark.parametrize("option", OPTIONS)
def test_a_resume_goes_on_bit_for_bit(before: Path, tmp_path: Path, option: str, strategy: str) -> None:
    begun = [*words(option), f"transfer.weights={before}", f"strategy={strategy}"]
    ranks = 1 if strategy == "single" else 2
    train_ranks(begun, tmp_path / "straight", ranks)
    back_to(6, tmp_path / "straight", tmp_path / "resumed")
    train_ranks([], tmp_path / "resumed", ranks, resume=True)
    assert_equal_runs(tmp_path / "resumed", tmp_path / "straight", 12)
    equal_but_for_the_end(tmp_path / "resumed", tmp_path / "straight")
    if strategy != "single" and option != "dropout":
        train_ranks(begun[:-1], tmp_path / "one")
        assert torch.allclose(losses(tmp_path / "straight"), losses(tmp_path / "one"), rtol=1e-4)


def test_lora_ends_with_the_first_names_and_a_frozen_base(before: Path, tmp_path: Path) -> None:
    summary = train_ranks([*words("lora"), f"transfer.weights={before}"], tmp_path / "run")
    first, last = weights(before), weights(tmp_path / "run")
    finished = load_file(tmp_path / "run/checkpoints/finished/model.safetensors")
    assert {name: value.shape for name, value in finished.items()} == {name: v.shape for name, v in first.items()}
    assert all(torch.equal(first[name], last[name]) for name in first if not name.startswith("head."))
    assert "stages.0.0.lora_a" in last
    assert not torch.equal(finished["stages.0.0.weight"], first["stages.0.0.weight"])
    assert summary["parameters_trained"] < sum(value.numel() for value in first.values())
    images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    assert load(tmp_path / "run")(images).shape == (3, 10)
    again = [*words("gradual_unfreezing"), f"transfer.weights={tmp_path / 'run'}", "train.steps=1"]
    train_ranks(list({w.partition("=")[0]: w for w in again}.values()), tmp_path / "again")


def test_layers_thaw_in_a_run(before: Path, tmp_path: Path) -> None:
    train_ranks([*words("gradual_unfreezing"), f"transfer.weights={before}"], tmp_path / "run")
    first = load_file(before / "checkpoints/latest/model.safetensors")
    moved = {}
    for step in (2, 4, 8):
        there = load_file(tmp_path / f"run/checkpoints/step-{step:08d}/model.safetensors")
        moved[step] = {name.rpartition(".")[0] for name in there if not torch.equal(there[name], first[name])}
    assert moved[2] == {"head"}
    assert moved[4] == {"head", "stages.1.0", "stages.1.1"}
    assert moved[8] == {"head", *(f"stages.{stage}.{layer}" for stage in (0, 1) for layer in (0, 1))}
    assert read(tmp_path / "run") == [], "nothing is smaller, so nothing is measured"


def test_low_rank_keeps_the_optimizers_state_of_other_layers(before: Path, tmp_path: Path) -> None:
    train_ranks([*words("low_rank"), f"transfer.weights={before}"], tmp_path / "run")
    (row,) = json.loads((tmp_path / "run/compression.json").read_text())
    assert (row["pass"], row["step"]) == ("low_rank", 4)
    assert row["after"]["multiply_adds"] < 0.7 * row["before"]["multiply_adds"]
    assert row["after"]["parameters"] < row["before"]["parameters"]
    state = load_file(tmp_path / "run/checkpoints/latest/optimizer.safetensors")
    assert float(state["stages.0.1.weight/step"]) == 12
    assert float(state["stages.1.0.reduce.weight/step"]) == 8
    assert load(tmp_path / "run")(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2, 10)
