"""channels_last: another order in memory, the same training, through every resume and layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run
from test_resume import RUN, assert_equal_runs, back_to, state_after

NET = ["model=cnn", "model.channels=[4,8]", "hardware.memory_format=channels_last"]
SGD = ["optimizer=sgd", "optimizer.learning_rate=0.05", "optimizer.momentum=0.9"]
CASES: dict[str, tuple[list[str], int]] = {
    "sgd": (SGD, 1),
    "muon": (["optimizer=muon"], 1),
    "ddp, adamw": (["train.ema=0.9"], 2),
    "powersgd": (["communication=powersgd", "communication.start_step=3", "model.channels=[16,32]"], 2),
    "diloco": (["strategy=diloco", "strategy.steps=2"], 2),
}


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_are_five_and_five(tmp_path: Path, name: str) -> None:
    words, world_size = CASES[name]
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks([*RUN, *NET, *words], straight, world_size)
    back_to(6, straight, resumed)
    train_ranks([], resumed, world_size, resume=True)
    assert_equal_runs(resumed, straight)
    assert all(t.is_contiguous() for t in state_after(straight, 10)["tensors"]["model.safetensors"].values())


@pytest.mark.parametrize("words", [SGD, [*SGD, "strategy=ddp", "launch.processes=2"]], ids=["single", "ddp"])
def test_the_losses_are_those_of_contiguous(tmp_path: Path, words: list[str]) -> None:
    world_size = 2 if "strategy=ddp" in words else 1
    losses = {}
    for memory_format in ("channels_last", "contiguous"):
        folder = tmp_path / memory_format
        train_ranks([*RUN, *NET, *words, f"hardware.memory_format={memory_format}"], folder, world_size)
        losses[memory_format] = torch.tensor([r["loss"] for r in records(folder, "train")])
    assert not torch.equal(losses["channels_last"], losses["contiguous"])
    torch.testing.assert_close(losses["channels_last"], losses["contiguous"], rtol=1e-4, atol=1e-5)


def test_filters_their_gradients_and_their_state_lie_so(tmp_path: Path) -> None:
    run_ranks(_look, 1, str(write_run([*RUN, *NET, "model.channels=[16,32]"], tmp_path, 1)))


def _look(folder: str) -> None:
    from accel_cli.engine.step import train_step

    t: Any = build_here(folder)
    train_step(t, next(t.loader.batches(0, t.steps)))
    filters = [p for p in t.parameters if p.dim() == 4 and p.size(1) > 1]
    assert filters
    for parameter in filters:
        assert parameter.is_contiguous(memory_format=torch.channels_last)
        assert not parameter.is_contiguous()
        for value in t.optimizer.state[parameter].values():
            assert value.dim() == 0 or value.stride() == parameter.stride()


def test_a_model_without_convolutions_says_so(tmp_path: Path) -> None:
    from accel_cli.hardware.layout import arrange

    (line,) = arrange(torch.nn.Linear(2, 2), "channels_last")
    assert "changes nothing" in line
    assert arrange(torch.nn.Conv2d(3, 4, 3), "contiguous") == []
