"""What a run tells: its records, its skipped steps, its divergence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run
from torch.utils.data import TensorDataset

from accel_cli.engine.attempts import begin, cut
from accel_cli.engine.step import train_step

DIGITS = ["data=digits", "model=mlp", "model.widths=[32]", "train.global_batch=32", "train.epochs=null"]
TRAIN_KEYS = {
    "kind", "step", "epoch", "samples", "seconds", "loss", "learning_rate", "gradient_norm", "samples_per_second",
    "skipped_steps",
}  # fmt: skip
HERE = ["test_metrics"]


def with_nan(split: str, bad: int) -> TensorDataset:
    """64 samples, of which the first ``bad`` of train hold nan."""
    inputs = torch.rand(64, 8, generator=torch.Generator().manual_seed(0))
    if split == "train":
        inputs[:bad] = math.nan
    return TensorDataset(inputs, torch.arange(64) % 4)


def custom(bad: int) -> list[str]:
    return [
        "data=custom",
        "data.factory=test_metrics:with_nan",
        f"data.args.bad={bad}",
        "data.classes=4",
        "model=mlp",
        "model.widths=[16]",
        "train.global_batch=8",
        "train.epochs=null",
        "metrics.every=1",
    ]


def test_every_window_has_a_record_with_every_field(tmp_path: Path) -> None:
    train_ranks([*DIGITS, "train.steps=10", "metrics.every=4", "evaluate.every=5"], tmp_path)
    train = records(tmp_path, "train")
    assert all(set(record) == TRAIN_KEYS for record in train)
    assert [record["step"] for record in train] == [4, 5, 8, 10]
    assert [record["samples"] for record in train] == [128, 160, 256, 320]
    assert all(record["skipped_steps"] == 0 and math.isfinite(record["loss"]) for record in train)
    evaluations = records(tmp_path, "evaluation")
    assert [sorted(k for k in e if k.endswith("_loss")) for e in evaluations] == [
        ["validation_loss"], ["validation_loss"], ["test_loss"],
    ]  # fmt: skip
    order = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert order == sorted(order)


def test_a_window_longer_than_is_kept_apart(tmp_path: Path) -> None:
    """One mean over 150 steps is the mean of 150 records of one."""
    overrides = [*DIGITS, "train.steps=150", "evaluate.every=1000", "checkpoint.every=1000"]
    train_ranks([*overrides, "metrics.every=1"], tmp_path / "each")
    train_ranks([*overrides, "metrics.every=150"], tmp_path / "one", 2)
    losses = [record["loss"] for record in records(tmp_path / "each", "train")]
    (one,) = records(tmp_path / "one", "train")
    assert one["loss"] == pytest.approx(sum(losses) / 150, rel=1e-4)


def weights_by_step(folder: str, steps: int) -> list[tuple[float, list[torch.Tensor]]]:
    t = build_here(folder, HERE)
    batches = t.loader.batches(0, steps)
    found = []
    for _ in range(steps):
        report = train_step(t, next(batches))
        t.step += 1
        found.append((float(report.skipped), [p.detach().clone() for p in t.bare.parameters()]))
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon", "rmsprop"])
def test_one_nan_on_one_rank_changes_no_weight_on_any(tmp_path: Path, optimizer: str) -> None:
    overrides = [*custom(1), "train.steps=8", f"optimizer={optimizer}"]
    folder = write_run(overrides, tmp_path, 2, HERE)
    first, second = run_ranks(weights_by_step, 2, str(folder), 8)
    skipped = [step for step, (skip, _) in enumerate(first) if skip]
    assert len(skipped) == 1
    for step, ((skip, one), (other_skip, other)) in enumerate(zip(first, second, strict=True)):
        assert skip == other_skip
        assert all(torch.equal(a, b) and bool(torch.isfinite(a).all()) for a, b in zip(one, other, strict=True))
        if step:
            before = first[step - 1][1]
            same = [torch.equal(a, b) for a, b in zip(one, before, strict=True)]
            assert all(same) if skip else not any(same)


def test_skipped_steps_are_counted_and_left_out_of_the_mean(tmp_path: Path) -> None:
    train_ranks([*custom(1), "train.steps=8"], tmp_path, 2, plugins=HERE)
    train = records(tmp_path, "train")
    assert sorted(record["skipped_steps"] for record in train) == [0] * 7 + [1]
    assert all((record["loss"] is None) == bool(record["skipped_steps"]) for record in train)


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("cause", ["rate", "data"])
def test_divergence_ends_with_exit_code_5(tmp_path: Path, cause: str, world_size: int) -> None:
    overrides = {
        "rate": [*DIGITS, "optimizer=sgd", "optimizer.learning_rate=1e30", "train.steps=60"],
        "data": [*custom(64), "train.steps=60"],
    }[cause]
    summary = train_ranks(overrides, tmp_path, world_size, expect=5, plugins=HERE)
    assert summary["status"] == "diverged"
    assert summary["exit_code"] == 5
    assert "optimizer.learning_rate=" in summary["error"]["try"]
    assert summary["steps"] <= 20, "it ends soon after the tenth in a row"


def test_cut_moves_what_came_after(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"kind": "train", "step": step}) for step in (1, 2, 3, 4)]
    path.write_text("\n".join(lines) + '\n{"kind": "tra')
    begin(tmp_path, {})
    assert cut(tmp_path, 2) == 2
    assert path.read_text().splitlines() == lines[:2]
    assert (tmp_path / "attempts" / "attempt-1.jsonl").read_text().splitlines() == lines[2:]
    assert cut(tmp_path, 2) == 0
    assert cut(tmp_path / "none", 2) == 0
