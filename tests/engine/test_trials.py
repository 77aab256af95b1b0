"""What only measuring settles: one answer on all ranks, nothing left behind, and the reason with its numbers."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import records, run_ranks, train_ranks, write_run
from torch import nn

from accel_cli.config import factory
from accel_cli.config import run as run_file
from accel_cli.config.machine import detect
from accel_cli.engine import measured, setup, trial_compile, trial_precision
from accel_cli.engine.settle import settle
from accel_cli.engine.trial import Pace, Trial, clearly_faster, race
from accel_cli.world import World

DIGITS = ["data=digits", "model=mlp", "model.widths=[32]", "train.global_batch=64", "train.epochs=null"]
LONG = [*DIGITS, "train.steps=10000000", "evaluate.every=1000000", "checkpoint.every=1000000"]
SHORT = [*DIGITS, "train.steps=4", "metrics.every=1", "checkpoint.every=2", "evaluate.every=1000"]


def settled(folder: str, cache: str, flags: list[str] | None = None, plugins: list[str] | None = None) -> list[Any]:
    """What a rank's autos became: each decision as plain containers."""
    os.environ["XDG_CACHE_HOME"] = cache
    factory.grant(plugins or [])
    if flags is not None:
        machine = replace(detect(), cpu_flags=frozenset(flags))
        trial_precision.detect = lambda: machine
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    _, decisions = settle(run, hardware, world, print)
    return [decision.to_dict() for decision in decisions]


@pytest.mark.flaky(reruns=2)
def test_a_race_tells_quick_from_slow_and_knows_its_noise() -> None:
    arms = {"slow": lambda: time.sleep(0.004), "quick": lambda: time.sleep(0.002)}
    hardware = type("Still", (), {"synchronize": staticmethod(lambda: None)})()
    found = race(arms, hardware, World(0, 1, 0, 1, torch.device("cpu")), seconds=0.5)
    assert 0.004 <= found["slow"].seconds < 0.05
    assert 0.002 <= found["quick"].seconds < found["slow"].seconds
    assert found["slow"].floor == found["quick"].floor >= 0


@pytest.mark.parametrize(
    ("candidate", "floor", "clear"), [(0.9, 0.01, True), (0.96, 0.01, False), (0.9, 0.2, False), (1.2, 0.0, False)]
)
def test_what_noise_could_explain_is_not_clear(candidate: float, floor: float, clear: bool) -> None:
    assert clearly_faster(Pace(candidate, floor), Pace(1.0, floor), margin=0.05) == clear


def test_a_processor_without_bf16_keeps_fp32_without_a_trial(tmp_path: Path) -> None:
    folder = write_run([*LONG, "precision=auto"], tmp_path, 1)
    (((found,),)) = run_ranks(settled, 1, str(folder), str(tmp_path / "cache"), ["avx2"])
    assert (found["key"], found["value"]) == ("precision", "fp32")
    assert "bf16" in found["why"]
    assert not found["measurements"]


def test_a_short_run_is_not_probed(tmp_path: Path) -> None:
    folder = write_run([*SHORT, "precision=auto", "compile=auto"], tmp_path, 1)
    ((precision, compiled),) = run_ranks(settled, 1, str(folder), str(tmp_path / "cache"), ["avx512_bf16"])
    assert (precision["value"], compiled["value"]) == ("fp32", "none")
    assert "whole run" in precision["why"]
    assert "whole run" in compiled["why"]


@pytest.mark.parametrize("world_size", [1, 2])
def test_precision_goes_to_the_quickest_on_all_ranks_and_is_remembered(
    tmp_path: Path, world_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run([*LONG, "precision=auto"], tmp_path, world_size)
    cache = str(tmp_path / "cache")
    every = run_ranks(settled, world_size, str(folder), cache, ["avx512_bf16"])
    assert all(rank == every[0] for rank in every)
    (found,) = every[0]
    seconds = found["measurements"]["step_seconds"]
    assert set(seconds) == {"fp32", "bf16"}
    assert found["value"] == "fp32" or seconds["bf16"] < 0.95 * seconds["fp32"]
    assert "ms in fp32" in found["why"]
    again = run_ranks(settled, world_size, str(folder), cache, ["avx512_bf16"])
    assert again == every, "measured anew: times are never equal"


def compile_remembered(folder: str, cache: str, compile_seconds: float) -> Any:
    """The decision where an earlier run has measured half the time a step, at some cost of compiling."""
    known = {
        "eager": 0.010, "compiled": 0.005, "floor": 0.0, "compile_seconds": compile_seconds,
        "difference": 0.0, "allowed": 1e-3,
    }  # fmt: skip
    trial_compile.recall = lambda world, name: known
    return settled(folder, cache)[0]


@pytest.mark.parametrize(
    ("compile_seconds", "mode", "pays"), [(9.2, "none", "1,840 steps, this run has 900"), (4.0, "full", "800 steps")]
)
def test_compiling_has_to_pay_before_the_run_ends(tmp_path: Path, compile_seconds: float, mode: str, pays: str) -> None:
    folder = write_run([*DIGITS, "train.steps=900", "compile=auto"], tmp_path, 1)
    (found,) = run_ranks(compile_remembered, 1, str(folder), str(tmp_path / "cache"), compile_seconds)
    assert found["value"] == mode
    assert f"pays after {pays}" in found["why"]


def test_a_time_budget_bounds_what_compiling_can_give_back(tmp_path: Path) -> None:
    folder = write_run([*LONG, "train.seconds=2", "compile=auto"], tmp_path, 1)
    ((decision,),) = run_ranks(settled, 1, str(folder), str(tmp_path))
    assert decision["value"] == "none"
    assert decision["why"].startswith("the whole run is 2 s of steps")


@pytest.mark.parametrize("world_size", [1, 2])
def test_compiling_that_gains_nothing_is_left(tmp_path: Path, world_size: int) -> None:
    """aot_eager traces and runs the same kernels: equal gradients, no gain."""
    folder = write_run([*LONG, "model.dropout=0.1", "compile=auto", "compile.backend=aot_eager"], tmp_path, world_size)
    every = run_ranks(settled, world_size, str(folder), str(tmp_path / "cache"))
    assert all(rank == every[0] for rank in every)
    (found,) = every[0]
    measurements = found["measurements"]
    assert measurements["difference"] <= measurements["allowed"]
    assert found["value"] == "none" or measurements["compiled"] < measurements["eager"]


def with_a_wrong_compiler(folder: str, cache: str) -> Any:
    def wrong(graph: Any, inputs: Any) -> Any:
        return lambda *values: tuple(1.1 * out if out.is_floating_point() else out for out in graph(*values))

    torch._dynamo.register_backend(wrong, name="wrong")  # type: ignore[arg-type]
    return settled(folder, cache)[0]


def test_a_compiler_that_computes_something_else_is_not_used(tmp_path: Path) -> None:
    folder = write_run([*LONG, "compile=auto", "compile.backend=wrong"], tmp_path, 1)
    (found,) = run_ranks(with_a_wrong_compiler, 1, str(folder), str(tmp_path / "cache"))
    assert found["value"] == "none"
    assert "gradients differ from eager ones" in found["why"]
    assert found["measurements"]["difference"] > found["measurements"]["allowed"]


class Wide(nn.Module):
    """Little to compute, much to keep: 0.7 MB a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.head = nn.Linear(64, 32768), nn.Linear(32768, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.expand(images.flatten(1)).tanh().square())


OWN = ["test_trials"]
FITTED = [
    "data=digits", "model=custom", "model.factory=test_trials:Wide", "train.global_batch=2048", "train.epochs=null",
    "train.steps=2", "train.micro_batch=auto", "loader=memory",
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "world_size"), [("single", 1), ("ddp", 2), ("fsdp", 2)])
def test_the_largest_micro_batch_that_fits(tmp_path: Path, strategy: str, world_size: int) -> None:
    """Under a limit that the kernel keeps: what was found trains, and the next size was seen or foreseen not to fit."""
    limit = 0.6
    words = [*FITTED, f"strategy={strategy}", f"hardware.memory_gigabytes={limit}"]
    summary = train_ranks(words, tmp_path, world_size, plugins=OWN)
    found = next(d for d in json.loads((tmp_path / "decisions.json").read_text()) if d["key"] == "train.micro_batch")
    size = found["value"]
    assert 1 < size < 2048 // world_size
    assert found["measurements"]["bytes"][str(size)] <= 0.9 * limit * 1e9
    assert summary["global_batch"] == 2048
    assert summary["samples"] == 4096


def with_less_on_one_rank(folder: str, cache: str) -> Any:
    os.environ["XDG_CACHE_HOME"] = cache
    factory.grant(OWN)
    run = run_file.read(Path(folder) / "run.yaml")
    if os.environ["RANK"] == "1":
        run = run.with_values("hardware", memory_gigabytes=0.5)
    hardware, world = setup.enter(run)
    return settle(run, hardware, world, print)[1][0].value


def test_the_rank_with_the_least_memory_decides_for_all(tmp_path: Path) -> None:
    folder = write_run([*FITTED, "hardware.memory_gigabytes=2"], tmp_path, 2, OWN)
    found = run_ranks(with_less_on_one_rank, 2, str(folder), str(tmp_path / "cache"))
    assert found[0] == found[1] < 1024, found


class Cliff(nn.Module):
    """Wants 4 GB at once from 100 samples on, which no straight line foresees."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) >= 100:
            torch.zeros(10**9)
        return self.head(images.flatten(1))


def test_running_out_of_memory_on_one_rank_is_agreed_on(tmp_path: Path) -> None:
    words = [*FITTED, "model.factory=test_trials:Cliff", "hardware.memory_gigabytes=0.5"]
    folder = write_run(words, tmp_path, 2, OWN)
    every = run_ranks(settled, 2, str(folder), str(tmp_path / "cache"), None, OWN)
    assert every[0] == every[1]
    (found,) = every[0]
    assert found["value"] == 64
    assert "ran out of it" in found["why"]


@pytest.mark.parametrize(("strategy", "world_size"), [("single", 1), ("ddp", 2), ("fsdp", 2)])
def test_the_learning_rate_is_found_and_the_search_leaves_nothing(
    tmp_path: Path, strategy: str, world_size: int
) -> None:
    words = [*SHORT, f"strategy={strategy}"]
    train_ranks([*words, "train.learning_rate=find"], tmp_path / "found", world_size)
    decisions = json.loads((tmp_path / "found" / "decisions.json").read_text())
    found = next(d for d in decisions if d["key"] == "optimizer.learning_rate")
    assert 1e-5 < found["value"] < 1
    assert len(found["measurements"]["losses"]) > 20
    train_ranks([*words, f"optimizer.learning_rate={found['value']}"], tmp_path / "given", world_size)
    losses = [[r["loss"] for r in records(tmp_path / each, "train")] for each in ("found", "given")]
    assert losses[0] == losses[1]


def test_a_resume_keeps_what_was_found(tmp_path: Path) -> None:
    train_ranks([*SHORT, "train.learning_rate=find"], tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path, "train")]
    for path in (tmp_path / "checkpoints" / "step-00000004").iterdir():
        path.unlink()
    before = json.loads((tmp_path / "decisions.json").read_text())
    train_ranks([], tmp_path, resume=True)
    assert json.loads((tmp_path / "decisions.json").read_text()) == before
    assert [r["learning_rate"] for r in records(tmp_path, "train")] == rates


class Still(nn.Module):
    """Its output follows from no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)[:, :10] + 0.0 * self.weight


def test_where_no_rate_helps_it_says_so(tmp_path: Path) -> None:
    words = ["data=digits", "model=custom", "model.factory=test_trials:Still", "train.learning_rate=find"]
    train_ranks(words, tmp_path, plugins=OWN, expect=2)


def test_a_trial_goes_round_when_the_run_is_short(tmp_path: Path) -> None:
    folder = write_run(SHORT, tmp_path, 1)
    assert run_ranks(step_on, 1, str(folder), 11) == [11]


def step_on(folder: str, count: int) -> int:
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    with Trial(run, hardware, world) as trial:
        return sum(bool(torch.isfinite(trial.step().loss)) for _ in range(count))


def test_measurements_are_of_a_shape(tmp_path: Path) -> None:
    keys = [
        run_ranks(key_of, 1, str(write_run([*DIGITS, "train.steps=5", *words], tmp_path / str(n), 1)))[0]
        for n, words in enumerate([[], ["train.seed=7"], ["model.widths=[33]"], ["train.micro_batch=32"]])
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def key_of(folder: str) -> str:
    run = run_file.read(Path(folder) / "run.yaml")
    hardware, world = setup.enter(run)
    with Trial(run, hardware, world) as trial:
        return measured.key(trial.training, "precision")
