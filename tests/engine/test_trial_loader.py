"""How many workers: measured where reading costs, the same on all ranks, nothing where it does not pay."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks, train_ranks, write_run
from test_trials import settled
from torch.utils.data import Dataset, default_collate

from accel_cli.config.decide import settled_before
from accel_cli.config.plan import plan
from accel_cli.engine.trial_loader import Pace, counts

OWN = ["test_trial_loader"]


class Slow(Dataset):
    """Takes a while to read, and holds no lock meanwhile."""

    classes = ("a", "b")

    def __init__(self, seconds: float, drawn: bool) -> None:
        self.seconds, self.drawn = seconds, drawn

    def __len__(self) -> int:
        return 160

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.seconds)
        return (torch.randn(64) if self.drawn else torch.full((64,), index / 160.0)), index % 2


def make(split: str, seconds: float = 0.005, drawn: bool = False) -> Any:
    return Slow(seconds if split == "train" else 0.0, drawn)


def words(steps: int, *more: str, **args: Any) -> list[str]:
    given = ",".join(f"{name}:{str(value).lower()}" for name, value in args.items())
    return [
        "data=custom", "data.factory=test_trial_loader:make", f"data.args={{{given}}}", "model=mlp",
        "data.collate=test_trial_loader:collate", "model.widths=[16]", "train.global_batch=16", "train.epochs=null",
        f"train.steps={steps}", "hardware.threads=2", "evaluate.every=100", "checkpoint.every=100", "metrics.every=1",
        *more,
    ]  # fmt: skip


collate = default_collate


def found(tmp_path: Path, run: list[str], world_size: int = 1) -> list[dict[str, Any]]:
    folder = write_run(run, tmp_path / "run", world_size, OWN)
    every = run_ranks(settled, world_size, str(folder), str(tmp_path / "cache"), None, OWN)
    assert all(rank == every[0] for rank in every)
    return list(every[0])


@pytest.mark.parametrize("world_size", [1, 2])
def test_slow_reading_gets_workers_or_threads_on_all_ranks(tmp_path: Path, world_size: int) -> None:
    loader, count, *_ = found(tmp_path, words(100_000), world_size)
    assert loader["key"] == "loader"
    assert count["key"] == f"loader.{loader['value']}"
    seconds = count["measurements"]["step_seconds"]
    assert {"0 workers", "1 workers", "1 threads"} <= set(seconds)
    if world_size == 1:  # ranks that take turns on few cores wait for one another more than for data
        assert count["value"] >= 1
        assert seconds[f"{count['value']} {loader['value']}"] < seconds["0 workers"]
    assert " ms with 0 workers" in count["why"]


@pytest.mark.parametrize(
    ("cores", "waited", "tried"),
    [(2, 0.9, [1, 2]), (16, 0.5, [1, 2, 4, 8, 16]), (16, 0.9, [4, 8, 16]), (64, 0.99, [8, 16]), (1, 0.5, [1])],
)
def test_counts_that_could_not_keep_up_are_left_out(cores: int, waited: float, tried: list[int]) -> None:
    assert list(counts(cores, Pace(1.0, waited, 0.0))) == tried


def test_data_that_draws_is_not_tried_in_threads(tmp_path: Path) -> None:
    loader, count, *_ = found(tmp_path, words(100_000, drawn=True))
    assert loader["value"] == "workers"
    assert not [name for name in count["measurements"]["step_seconds"] if "threads" in name]


def test_quick_reading_needs_no_worker(tmp_path: Path) -> None:
    (count,) = found(tmp_path, ["data=digits", "loader=workers", "model=mlp", "model.widths=[2048,2048,2048]",
                                "train.global_batch=256", "train.epochs=null", "train.steps=100000"])  # fmt: skip
    assert (count["key"], count["value"]) == ("loader.workers", 0)
    assert count["why"].startswith("reading a batch takes")


@pytest.mark.parametrize(
    "run",
    [
        words(200),
        words(100_000, "loader=workers", "loader.workers=1"),
        ["data=digits"],
        words(100_000, "loader=memory"),
    ],
)
def test_what_asks_for_nothing_is_not_measured(tmp_path: Path, run: list[str]) -> None:
    assert found(tmp_path, run) == []


def test_a_resumed_run_keeps_what_was_found(tmp_path: Path) -> None:
    known = {"loader": "threads", "loader.threads": 3, "loader.prefetch": 4}
    run = settled_before(plan(words(1000), plugins=OWN).run, known)
    assert (run.loader.option, run.loader.threads, run.loader.prefetch) == ("threads", 3, 4)
    run = settled_before(plan(words(1000, "loader=workers"), plugins=OWN).run, {"loader.workers": 2})
    assert (run.loader.option, run.loader.workers, run.loader.prefetch) == ("workers", 2, "auto")
    run = settled_before(plan(words(1000), plugins=OWN).run, {"loader": "memory"})
    assert run.loader.option == "auto", "what facts decide costs nothing to decide again"
    own = plan(words(1000, "loader=workers", "loader.workers=5"), plugins=OWN).run
    assert settled_before(own, {"loader": "threads", "loader.threads": 3}) == own


def test_a_run_trains_with_what_was_found(tmp_path: Path) -> None:
    summary = train_ranks(words(10_000, "train.seconds=1"), tmp_path / "run", plugins=OWN)
    assert summary["status"] == "completed"
    decided = json.loads((tmp_path / "run" / "decisions.json").read_text())
    loader = next(decision for decision in decided if decision["key"] == "loader")
    assert f"loader.{loader['value']}" in [decision["key"] for decision in decided]
