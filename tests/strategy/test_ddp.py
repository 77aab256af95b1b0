"""DistributedDataParallel as accel uses it: when it talks, what it shares, what it asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import build_here, run_ranks, train_here, write_run
from safetensors.torch import load_file
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.step import train_step
from accel_cli.launch import first_failure

MLP = ["data=digits", "model=mlp", "model.widths=[16]", "train.global_batch=32", "train.epochs=null"]
HERE = ["test_ddp"]


def exchanges(folder: str) -> tuple[int, bool]:
    """(all-reduces of gradients in one step, whether the ranks' gradients are the mean of what each computed)"""
    t = build_here(folder)
    count = 0

    def counted(state, bucket):  # DDP wants real annotations or none
        nonlocal count
        count += 1
        return allreduce_hook(None, bucket)

    t.model.register_comm_hook(None, counted)  # type: ignore[operator]
    batches = next(t.loader.batches(0, 1))
    t.strategy.forward_backward(t, batches)
    shared = [p.grad.clone() for p in t.parameters if p.grad is not None]
    for p in t.parameters:
        p.grad = None
    for batch in batches:
        (t.task.loss(t.bare, batch)[0] / t.run.train.global_batch).backward()
    own = [p.grad for p in t.parameters if p.grad is not None]
    for gradient in own:
        t.world.sum(gradient)
    return count, all(torch.allclose(a, b, rtol=1e-4, atol=1e-7) for a, b in zip(shared, own, strict=True))


@pytest.mark.parametrize("micro_batch", [16, 4])
def test_gradients_travel_once_a_step(tmp_path: Path, micro_batch: int) -> None:
    folder = write_run([*MLP, "train.steps=1", f"train.micro_batch={micro_batch}"], tmp_path, 2)
    assert run_ranks(exchanges, 2, str(folder)) == [(1, True), (1, True)]


class Forked(nn.Module):
    """Has a branch that is never taken."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.used = nn.Linear(64, classes)
        self.unused = nn.Linear(64, classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.used(inputs.flatten(1))


FORKED = ["data=digits", "model=custom", "model.factory=test_ddp:Forked", "model.args.classes=10",
          "train.global_batch=32", "train.epochs=null", "train.steps=4"]  # fmt: skip


@pytest.mark.parametrize("strategy", [["strategy=ddp"], ["strategy=mesh", "strategy.replicate=2"]], ids=["ddp", "mesh"])
def test_an_unused_parameter_is_told_with_what_to_type(tmp_path: Path, strategy: list[str]) -> None:
    folder = write_run([*FORKED, *strategy, "strategy.find_unused_parameters=false"], tmp_path, 2, HERE)
    assert set(run_ranks(train_here, 2, str(folder), False, None, HERE)) <= {3}
    assert "find_unused_parameters=true" in first_failure.find(folder, []).fix


def test_and_that_helps(tmp_path: Path) -> None:
    folder = write_run([*FORKED, "strategy.find_unused_parameters=true"], tmp_path, 2, HERE)
    assert run_ranks(train_here, 2, str(folder), False, 0, HERE) == [0, 0]


def statistics(folder: str) -> tuple[list[torch.Tensor], list[torch.Tensor], dict[str, float]]:
    """BatchNorm's buffers after some steps, the same after an evaluation, and what it gave."""
    t = build_here(folder)
    batches = t.loader.batches(0, 5)
    for _ in range(5):
        train_step(t, next(batches))
        t.step += 1
    before = [buffer.clone() for buffer in t.bare.buffers()]
    found = evaluate(t, "validation")
    return before, [buffer.clone() for buffer in t.bare.buffers()], found


CNN = ["data=digits", "model=cnn", "model.channels=[4,8]", "train.global_batch=32", "train.epochs=null"]


def test_ranks_evaluate_with_rank_0s_buffers_which_are_saved(tmp_path: Path) -> None:
    folder = write_run([*CNN, "train.steps=5"], tmp_path, 2)
    (first, first_after, one), (second, second_after, other) = run_ranks(statistics, 2, str(folder))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True)), "each rank's own in training"
    assert all(torch.equal(a, b) for a, b in zip(first, first_after, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first_after, second_after, strict=True))
    assert one == other
    assert run_ranks(train_here, 2, str(folder)) == [0, 0]
    saved = load_file(folder / "checkpoints" / "latest" / "model.safetensors")
    names = [name for name in saved if "running" in name or "num_batches" in name]
    assert all(any(torch.equal(saved[name], buffer) for buffer in first) for name in names)
