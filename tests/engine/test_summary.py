"""summary.json: every key, however a run ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ranks import train_ranks

from accel_cli.engine import attempts
from accel_cli.engine.clock import PHASES
from accel_cli.engine.summary import EMPTY, step_milliseconds, world_size

DESIGN = """
    status exit_code error steps epochs samples global_batch world_size device strategy precision parameters
    parameters_trained metric loss attempts lost_steps train_seconds wall_seconds first_step_seconds
    time_to_target_seconds samples_per_second step_milliseconds utilisation time_share costs what_if
    peak_memory_bytes
    communication_bytes one_off_seconds model_bytes compression advice
"""
KEYS = set(DESIGN.split())
RUN = ["data=digits", "model=mlp", "model.widths=[32]", "train.epochs=null", "train.steps=12", "train.global_batch=64"]


def assert_whole(summary: dict[str, Any]) -> None:
    assert set(summary) == KEYS
    for key in ("metric", "step_milliseconds", "costs", "peak_memory_bytes", "one_off_seconds"):
        assert set(summary[key]) == set(EMPTY[key])


def test_the_contract_is_the_design() -> None:
    assert set(EMPTY) == KEYS


@pytest.mark.parametrize(
    ("overrides", "code", "status"),
    [
        ([], 0, "completed"),
        (["stopping=target", "stopping.target=0.01", "evaluate.every=2"], 0, "target_reached"),
        (["stopping=early", "stopping.patience=1", "stopping.min_delta=0.9", "evaluate.every=2"], 0, "stopped_early"),
        (["optimizer=sgd", "optimizer.learning_rate=1e30", "metrics.every=1"], 5, "diverged"),
    ],
)
def test_every_key_however_it_ended(tmp_path: Path, overrides: list[str], code: int, status: str) -> None:
    summary = train_ranks([*RUN, *overrides], tmp_path, expect=code)
    assert_whole(summary)
    assert summary["status"] == status
    assert summary["exit_code"] == code
    if code == 0:
        assert summary["samples"] == summary["steps"] * 64
        assert set(summary["time_share"]) == set(PHASES)
        assert sum(summary["time_share"].values()) == pytest.approx(1.0, abs=0.001)
        assert summary["parameters"] == 64 * 32 + 32 + 32 * 10 + 10
        assert summary["metric"]["name"] == "accuracy"
        assert (summary["time_to_target_seconds"] is not None) == (status == "target_reached")


def test_two_ranks_say_what_they_send(tmp_path: Path) -> None:
    summary = train_ranks(RUN, tmp_path, 2)
    assert_whole(summary)
    assert summary["world_size"] == 2
    assert summary["communication_bytes"] == summary["parameters"] * 4 * 12


def test_step_milliseconds_leaves_the_warm_up_out() -> None:
    assert step_milliseconds([]) == {"median": None, "p95": None}
    assert step_milliseconds([0.002]) == {"median": 2.0, "p95": 2.0}
    assert step_milliseconds([5.0] * 2 + [0.001] * 17 + [0.003]) == {"median": 1.0, "p95": 1.0}
    assert step_milliseconds([0.001] * 10 + [0.003] * 10)["p95"] == 3.0


def test_a_failed_run_had_the_ranks_of_its_newest_attempt(tmp_path: Path) -> None:
    assert world_size(tmp_path, {"processes": 2, "nodes": 3}) == 6
    assert world_size(tmp_path, {"processes": 2, "nodes": "2:4"}) == 4
    for ranks in (4, 8):
        attempts.begin(tmp_path, {"world_size": ranks})
    assert world_size(tmp_path, {"processes": 2, "nodes": "2:4"}) == 8
