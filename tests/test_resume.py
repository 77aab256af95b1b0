"""The law of resume: a run killed at any instant and resumed ends bit for bit as one that was never killed."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, records, train_here, train_ranks, write_run
from safetensors.torch import load_file

STEPS = 10
# 37 steps an epoch: step 5 is inside the first. Every step is saved, every second evaluated.
RUN = [
    "data=digits",
    "train.global_batch=32",
    "train.epochs=null",
    f"train.steps={STEPS}",
    "metrics.every=1",
    "evaluate.every=2",
    "checkpoint.every=1",
    "checkpoint.keep_last=100",
]
SMALL = ["model=mlp", "model.widths=[32]"]
STATE = ["train.ema=0.9", "model.dropout=0.2", "schedule=plateau", "schedule.patience=0", "schedule.min_delta=0.5"]
FOLLOWS = "schedule.momentum=[0.85,0.95]"
IMAGES = ["model=cnn", "model.channels=[4,8]", "model.dropout=0.2", "augment=basic", "loader=workers"]

WORK: dict[str, tuple[list[str], tuple[int, ...]]] = {
    "plain": (SMALL, (1, 2, 4)),
    "state": ([*SMALL, *STATE, "stopping=early", "stopping.patience=50", "train.clip_norm=0.1"], (1, 2)),
    "fp16": ([*SMALL, "precision=fp16", "precision.growth_interval=3", "precision.initial_scale=1024"], (1, 2)),
    "bf16_pure": (["model=cnn", "model.channels=[4,8]", "precision=bf16_pure"], (1, 2)),
    "bf16_pure dealt": (
        ["model=cnn", "model.channels=[4,8]", "model.normalisation=group", "precision=bf16_pure", "strategy=fsdp"],
        (2,),
    ),
    "fp8": ([*SMALL, "precision=fp8", "precision.recipe=rowwise"], (1,)),
    "fp8 gathered": ([*SMALL, "precision=fp8", "precision.gather=fp8", "strategy=fsdp"], (2,)),
    "muon": ([*SMALL, "optimizer=muon", "schedule=warmup_stable_decay", FOLLOWS], (1, 2)),
    "momentum": ([*SMALL, "optimizer=sgd", "optimizer.learning_rate=0.01", "schedule=onecycle", FOLLOWS], (1,)),
    "images": (IMAGES, (1, 2)),
    "accumulation": ([*SMALL, "train.micro_batch=4", "model.dropout=0.1"], (2, 4)),
    "buckets": ([*SMALL, "model.widths=[512,512]", "strategy.bucket_megabytes=0.2", "checkpoint.every=5"], (4,)),
    "powersgd": ([*SMALL, "model.widths=[64,64]", "communication=powersgd", "communication.start_step=3"], (2, 4)),
    "windows": ([*SMALL, "metrics.every=4", "evaluate.every=5", "checkpoint.every=5"], (2,)),
    "epochs": ([*SMALL, "train.global_batch=512"], (2,)),
}
CASES = [(name, world_size) for name, (_, sizes) in WORK.items() for world_size in sizes]


def state_after(folder: Path, step: int) -> dict[str, Any]:
    """All that a checkpoint holds, less the times in it."""
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    tensors = {path.name: load_file(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    state = json.loads((checkpoint / "state.json").read_text())
    state.pop("seconds")
    state["progress"].pop("target_seconds")
    return {"tensors": tensors, "state": state}


def steps_told(folder: Path) -> list[tuple[Any, ...]]:
    """What metrics.jsonl says of each step and evaluation, less the times."""
    train = [(r["step"], r["loss"], r["gradient_norm"], r["learning_rate"]) for r in records(folder, "train")]
    return train + [(r["step"], r.get("validation_loss"), r.get("test_loss")) for r in records(folder, "evaluation")]


def assert_equal_runs(folder: Path, straight: Path, step: int = STEPS) -> None:
    own, expected = state_after(folder, step), state_after(straight, step)
    assert own["state"] == expected["state"]
    assert own["tensors"].keys() == expected["tensors"].keys()
    for file, tensors in expected["tensors"].items():
        assert own["tensors"][file].keys() == tensors.keys()
        for name, value in tensors.items():
            assert torch.equal(own["tensors"][file][name], value), f"{file}: {name}"
    assert steps_told(folder) == steps_told(straight)


def back_to(step: int, straight: Path, folder: Path) -> None:
    """A copy of a run as it was when killed a while after ``step`` was saved."""
    shutil.copytree(straight, folder, symlinks=True)
    (folder / "summary.json").unlink()
    for path in (folder / "checkpoints").glob("step-*"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)


@pytest.mark.parametrize(("name", "world_size"), CASES)
def test_ten_steps_are_five_and_five(tmp_path: Path, name: str, world_size: int) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks(RUN + WORK[name][0], straight, world_size)
    back_to(5, straight, resumed)
    summary = train_ranks([], resumed, world_size, resume=True)
    assert_equal_runs(resumed, straight)
    assert summary["steps"] == STEPS
    assert summary["attempts"] == 2
    assert summary["lost_steps"] == STEPS - 5


def test_the_comparison_can_fail(tmp_path: Path) -> None:
    train_ranks(RUN + SMALL, tmp_path)
    first, last = state_after(tmp_path, 5), state_after(tmp_path, STEPS)
    for file, tensors in first["tensors"].items():
        assert any(not torch.equal(value, last["tensors"][file][name]) for name, value in tensors.items()), file


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_at_any_instant(tmp_path: Path, world_size: int) -> None:
    """SIGKILL to all ranks at random instants, and a resume each time; at last it runs through."""
    draw = random.Random(world_size)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    overrides = [*RUN, *SMALL, "train.ema=0.9", "train.steps=40", "checkpoint.keep_last=3"]
    train_ranks(overrides, straight, world_size)
    write_run(overrides, killed, world_size)
    started, kills = False, 0
    for _ in range(3):
        ranks = Ranks(train_here, world_size, str(killed), started)
        wait_for_progress(killed, ranks)
        time.sleep(draw.uniform(0.0, 0.1))
        kills += any(process.is_alive() for process in ranks.processes)
        ranks.close()
        started = any((killed / "checkpoints").glob("step-*"))
    assert kills, "every attempt ended before it was killed"
    train_ranks([], killed, world_size, resume=started)
    assert_equal_runs(killed, straight, 40)


def wait_for_progress(folder: Path, ranks: Ranks) -> None:
    """Until this attempt has told of a step, or has ended."""
    path = folder / "metrics.jsonl"
    before = path.stat().st_size if path.exists() else 0
    ends = time.monotonic() + 30
    while time.monotonic() < ends and any(process.is_alive() for process in ranks.processes):
        if path.exists() and path.stat().st_size > before:
            return
        time.sleep(0.005)
