"""Low precision on the CPU: it learns, an overflow is skipped by all ranks, and a scale that collapses ends the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run

from accel_cli.engine.step import train_step

DIGITS = ["data=digits", "model=mlp", "train.global_batch=64"]
SHORT = [*DIGITS, "train.epochs=null", "metrics.every=1", "model.widths=[32]"]


@pytest.mark.parametrize(("precision", "world_size"), [("bf16", 1), ("fp16", 1), ("fp16", 2)])
def test_it_learns_the_digits(tmp_path: Path, precision: str, world_size: int) -> None:
    summary = train_ranks([*DIGITS, f"precision={precision}", "train.epochs=8"], tmp_path, world_size)
    assert summary["precision"] == precision
    assert summary["metric"]["value"] > 0.9


def overflow(folder: str, steps: int) -> list[tuple[float, float, bool]]:
    """(skipped, scale, whether a weight changed) of each step."""
    t = build_here(folder)
    batches = t.loader.batches(0, steps)
    found = []
    for _ in range(steps):
        before = [p.detach().clone() for p in t.parameters]
        report = train_step(t, next(batches))
        t.step += 1
        changed = any(not torch.equal(a, p) for a, p in zip(before, t.parameters, strict=True))
        found.append((float(report.skipped), float(t.scaler.factor), changed))
    return found


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_overflow_halves_the_scale_and_changes_nothing_on_any_rank(tmp_path: Path, world_size: int) -> None:
    scale = 2.0**30
    overrides = [*SHORT, "precision=fp16", f"precision.initial_scale={scale}", "train.steps=30"]
    folder = write_run(overrides, tmp_path, world_size)
    every: list[Any] = run_ranks(overflow, world_size, str(folder), 30)
    assert all(rank == every[0] for rank in every)
    skipped = [step for step, (skip, _, _) in enumerate(every[0]) if skip]
    assert skipped, "the scale was meant to overflow"
    assert len(skipped) < 30
    for skip, now, changed in every[0]:
        assert changed == (not skip)
        scale = scale / 2 if skip else scale
        assert now == scale


def test_the_scale_grows_after_a_quiet_while(tmp_path: Path) -> None:
    overrides = [*SHORT, "precision=fp16", "precision.initial_scale=4", "precision.growth_interval=3", "train.steps=6"]
    folder = write_run(overrides, tmp_path, 1)
    (found,) = run_ranks(overflow, 1, str(folder), 6)
    assert [scale for _, scale, _ in found] == [4, 4, 8, 8, 8, 16]


def test_a_scale_that_collapses_ends_with_exit_code_5(tmp_path: Path) -> None:
    """The rate is such that after one update no gradient is finite any more; no limit on skipped steps helps."""
    overrides = [
        *SHORT,
        "precision=fp16",
        "precision.initial_scale=1",
        "optimizer=sgd",
        "optimizer.learning_rate=1e30",
        "train.max_skipped_steps=1000",
        "train.steps=60",
    ]
    summary = train_ranks(overrides, tmp_path, 2, expect=5)
    assert summary["status"] == "diverged"
    assert "loss scale collapsed" in summary["error"]["message"]
    assert "precision=bf16" in summary["error"]["try"]
    assert len(records(tmp_path, "train")) < 40


def test_the_scale_is_saved(tmp_path: Path) -> None:
    train_ranks([*SHORT, "precision=fp16", "precision.growth_interval=2", "train.steps=4"], tmp_path)
    state = json.loads((tmp_path / "checkpoints" / "latest" / "state.json").read_text())
    assert state["scaler"]["scale"] == 65536.0 * 4
