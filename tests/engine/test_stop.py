"""Stopping together: one rank hears of it, all end after the same step, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from ranks import Ranks, records, train_here, train_ranks, write_run

from accel_cli.engine.checkpoint_files import newest

LONG = [
    "data=digits",
    "model=mlp",
    "model.widths=[32]",
    "train.global_batch=24",
    "train.epochs=null",
    "train.steps=1000000",
    "metrics.every=5",
    "evaluate.every=1000000",
    "checkpoint.every=1000000",
]


def wait_for_a_record(folder: Path, ranks: Ranks) -> None:
    ends = time.monotonic() + 30
    path = folder / "metrics.jsonl"
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < ends
        assert all(process.is_alive() for process in ranks.processes), ranks.results()
        time.sleep(0.01)


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize(
    ("world_size", "rank", "number", "code"),
    [
        (1, 0, signal.SIGTERM, 75),
        (2, 1, signal.SIGTERM, 75),
        (2, 0, signal.SIGINT, 130),
        (3, 2, signal.SIGUSR1, 75),
        (4, 3, signal.SIGHUP, 75),
    ],
)
def test_a_signal_to_one_rank_stops_all(
    tmp_path: Path, world_size: int, rank: int, number: signal.Signals, code: int
) -> None:
    folder = write_run(LONG, tmp_path, world_size)
    ranks = Ranks(train_here, world_size, str(folder))
    wait_for_a_record(folder, ranks)
    os.kill(ranks.processes[rank].pid or 0, number)
    assert ranks.results(30) == [code] * world_size
    summary = summary_of(folder)
    assert summary["status"] == "interrupted"
    assert summary["exit_code"] == code
    saved, _ = newest(folder)
    assert saved.step == summary["steps"] == records(folder, "train")[-1]["step"]


def test_signals_to_all_at_once_stop_all(tmp_path: Path) -> None:
    folder = write_run(LONG, tmp_path, 3)
    ranks = Ranks(train_here, 3, str(folder))
    wait_for_a_record(folder, ranks)
    for process in ranks.processes:
        os.kill(process.pid or 0, signal.SIGINT)
    assert ranks.results(30) == [130] * 3


def test_stopped_and_resumed_and_stopped(tmp_path: Path) -> None:
    folder = write_run(LONG, tmp_path, 2)
    steps = []
    for resume in (False, True):
        ranks = Ranks(train_here, 2, str(folder), resume)
        before = len(records(folder, "train")) if resume else 0
        ends = time.monotonic() + 30
        while time.monotonic() < ends:
            path = folder / "metrics.jsonl"
            if path.exists() and len(path.read_text().splitlines()) > before + 1:
                break
            time.sleep(0.01)
        os.kill(ranks.processes[1].pid or 0, signal.SIGTERM)
        assert ranks.results(30) == [75, 75]
        steps.append(summary_of(folder)["steps"])
    assert 0 < steps[0] < steps[1]
    assert summary_of(folder)["lost_steps"] == 0
    told = [record["step"] for record in records(folder, "train")]
    assert told == sorted(set(told))


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_time_budget_ends_the_run_whole(tmp_path: Path, world_size: int) -> None:
    began = time.monotonic()
    summary = train_ranks([*LONG, "train.seconds=0.5"], tmp_path, world_size)
    assert time.monotonic() - began < 20
    assert summary["status"] == "completed"
    assert summary["exit_code"] == 0
    assert 0 < summary["steps"] < 1_000_000
    assert 0.2 < summary["train_seconds"] < 5
    evaluated = [record for record in records(tmp_path, "evaluation") if "validation_accuracy" in record]
    assert evaluated[-1]["step"] == summary["steps"]
    assert summary["metric"]["value"] is not None
    assert newest(tmp_path)[0].step == summary["steps"]
