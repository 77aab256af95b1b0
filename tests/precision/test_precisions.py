"""Low precision on the CPU: it learns, an overflow is skipped by all ranks, and a scale that collapses ends the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run

from accel_cli.engine.step import train_step
from accel_cli.precision.fp16 import DynamicScaler
from accel_cli.strategy import sharding

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


HERE = ["test_precisions"]


class Steep(torch.nn.Module):
    """Finite in fp32: gradients of the size of 1e12, which no loss scale makes fit for fp16."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images.flatten(1)).float() * 1e12


STEEP = ["data=digits", "model=custom", "model.factory=test_precisions:Steep", "model.args.classes=10",
         "train.global_batch=16", "train.epochs=null", "train.steps=200", "precision=fp16"]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message", "steps"),
    [([], "the fp16 gradients overflowed for", 10), (["train.max_skipped_steps=500"], "loss scale collapsed", 40)],
)
def test_200_overflowing_batches_end_with_exit_5_and_name_fp16(
    tmp_path: Path, overrides: list[str], message: str, steps: int
) -> None:
    summary = train_ranks([*STEEP, *overrides], tmp_path, expect=5, plugins=HERE)
    assert summary["status"] == "diverged"
    assert message in summary["error"]["message"]
    assert "fp16" in summary["error"]["message"]
    assert summary["error"]["try"].startswith("try precision=bf16")
    assert summary["steps"] <= steps
    assert all(record["skipped_steps"] == 10 for record in records(tmp_path, "train"))


def test_what_overflows_in_fp16_alone_trains_in_bf16(tmp_path: Path) -> None:
    words = [*STEEP[:-1], "precision=bf16", "train.steps=12"]
    assert train_ranks(words, tmp_path, plugins=HERE)["status"] == "completed"


def poisoned(folder: str, bad_step: int, steps: int) -> list[tuple[bool, bool]]:
    """(skipped, whether a weight or a number of the optimizer changed); rank 1 has a nan in one batch."""
    t = build_here(folder)
    batches = t.loader.batches(0, steps)
    found = []
    for step in range(steps):
        micro_batches = next(batches)
        if step == bad_step and t.world.rank == 1:
            micro_batches[0][0].view(-1)[0] = torch.nan
        held = list(t.bare.parameters()) + [
            value
            for p in t.bare.parameters()
            for name, value in sorted(t.optimizer.state.get(p, {}).items())
            if name != "step"
        ]
        before = [sharding.local(tensor.detach()).clone() for tensor in held]
        report = train_step(t, micro_batches)
        t.step += 1
        same = all(torch.equal(a, sharding.local(b.detach())) for a, b in zip(before, held, strict=True))
        found.append((bool(report.skipped), not same))
    return found


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16_pure"])
def test_one_nan_on_one_rank_changes_no_weight_on_any(tmp_path: Path, strategy: str, precision: str) -> None:
    words = [*SHORT, f"strategy={strategy}", f"precision={precision}", "train.steps=4"]
    folder = write_run(words, tmp_path, 2)
    good, bad = (False, True), (True, False)
    assert run_ranks(poisoned, 2, str(folder), 2, 4) == [[good, good, bad, good]] * 2


def test_the_scale_is_that_of_torchs_own_scaler() -> None:
    draw = torch.Generator().manual_seed(0)
    own = DynamicScaler(torch.device("cpu"), 65536.0, 7)
    theirs = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=7)
    weight = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    theirs.scale(torch.ones(()))
    overflows = torch.rand(600, generator=draw) < torch.linspace(0.0, 0.25, 600)
    for overflow in overflows.tolist():
        weight.grad = torch.tensor(torch.inf if overflow else 1.0)
        own.step(optimizer, weight.grad.clone(), fused=False)
        own.update()
        theirs.step(optimizer)
        theirs.update()
        assert float(own.factor) == theirs.get_scale()
        assert int(own.quiet) == int(theirs._growth_tracker)
    assert own.factor > 0
