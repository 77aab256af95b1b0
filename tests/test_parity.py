"""The law of parity: any strategy on any number of ranks trains as one process does, on the same batches.

Plain SGD, no momentum, no clipping, fp32: an average taken for a sum, or a batch weighed wrongly, shows in the losses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import records, run_ranks, train_here, write_run
from safetensors.torch import load_file

from accel_cli.loader.order import Order

STEPS = 20
PLAIN = [
    "precision=fp32",
    "optimizer=sgd",
    "optimizer.momentum=0",
    "optimizer.weight_decay=0",
    "schedule=constant",
    "train.epochs=null",
    f"train.steps={STEPS}",
    "metrics.every=1",
    "evaluate.every=1000",
    "checkpoint.every=1000",
]
# 20 batches of 128 are more than two epochs of the digits, whose borders lie inside batches.
WORK = {
    "mlp": ["data=digits", "model=mlp", "train.global_batch=128", "optimizer.learning_rate=0.1"],
    "cnn": [
        "data=digits",
        "model=cnn",
        "model.normalisation=group",
        "model.channels=[8,16]",
        "train.global_batch=32",
        "optimizer.learning_rate=0.1",
    ],
    "gpt": [
        "data=stdlib_text",
        "data.length=16",
        "data.max_bytes=40000",
        "model=gpt",
        "model.width=16",
        "model.depth=2",
        "model.heads=2",
        "train.global_batch=16",
        "optimizer.learning_rate=0.1",
    ],
}
# Targets that do not count: every micro-batch of every rank has a weight of its own.
WORK["masked gpt"] = [
    "data=custom",
    "data.factory=test_parity:masked",
    "data.classes=32",
    "task=language_model",
    "task.ignored_targets=true",
    *WORK["gpt"][3:],
]


class Masked(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Runs of tokens counted up from a start; of sample i the first i % 7 targets count, at least one."""

    def __len__(self) -> int:
        return 300

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = (torch.arange(13) * (1 + index % 3) + index) % 32
        targets = tokens[1:].clone()
        targets[1 + index % 7 :] = -100
        return tokens[:-1], targets


def masked() -> Masked:
    return Masked()


def train_and_record(folder: str) -> list[tuple[int, list[int]]]:
    """The (step, indices) that this rank trained on, as its loader asked for them."""
    seen: list[tuple[int, list[int]]] = []
    share = Order.share

    def recorded(self: Order, step: int) -> Any:
        epochs, indices = share(self, step)
        seen.append((step, indices.tolist()))
        return epochs, indices

    Order.share = recorded  # type: ignore[method-assign]
    train_here(folder, expect=0, plugins=["test_parity"])
    return seen


def train(
    folder: Path, overrides: list[str], world_size: int
) -> tuple[list[Any], list[float], dict[str, torch.Tensor]]:
    """(indices of each global batch, in order; losses of each step; final weights)"""
    write_run(PLAIN + overrides, folder, world_size, plugins=["test_parity"])
    seen = run_ranks(train_and_record, world_size, str(folder))
    batches = []
    for step in range(STEPS):
        assert all(rank[step][0] == step for rank in seen)
        batches.append([index for rank in seen for index in rank[step][1]])
    losses = [record["loss"] for record in records(folder, "train")]
    assert len(losses) == STEPS
    weights = load_file(folder / "checkpoints" / "latest" / "model.safetensors")
    return batches, losses, weights


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("single")
    return {name: train(folder / name, work, 1) for name, work in WORK.items()}


CASES = [
    (name, world_size, parts)
    for name in WORK
    for world_size, parts in ((1, 2), (1, 4), (2, 1), (2, 2), (4, 1), (4, 4))
    if name == "mlp" or (world_size, parts) in ((1, 4), (2, 2), (4, 1))
]


@pytest.mark.parametrize(("name", "world_size", "parts"), CASES)
def test_ranks_and_accumulation_change_nothing(
    tmp_path: Path, single: dict[str, Any], name: str, world_size: int, parts: int
) -> None:
    batch = int(next(w for w in WORK[name] if w.startswith("train.global_batch")).partition("=")[2])
    overrides = [*WORK[name], "strategy=ddp", f"train.micro_batch={batch // world_size // parts}"]
    batches, losses, weights = train(tmp_path / "run", overrides, world_size)
    expected_batches, expected_losses, expected_weights = single[name]
    assert batches == expected_batches
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert losses[-1] < losses[0], "nothing was learned, so equal losses would prove nothing"
    for key, value in expected_weights.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)


def test_the_losses_can_tell(tmp_path: Path, single: dict[str, Any]) -> None:
    """The same run at a rate one part in a hundred higher differs by more than the law allows."""
    rate = [*WORK["mlp"][:-1], "optimizer.learning_rate=0.101"]
    _, losses, _ = train(tmp_path / "run", rate, 2)
    assert losses != pytest.approx(single["mlp"][1], rel=1e-5)
