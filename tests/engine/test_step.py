"""What a step draws, and at what rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run

from accel_cli.engine.step import set_learning_rate, step_seed
from accel_cli.strategy.base import Strategy
from accel_cli.world import World


def test_seeds_differ_by_seed_step_and_rank() -> None:
    seeds = [step_seed(s, step, rank) for s in range(4) for step in range(500) for rank in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_seeds_draw_unrelated_numbers() -> None:
    draws = []
    for step in range(200):
        torch.manual_seed(step_seed(0, step, 0))
        draws.append(torch.rand(2))
    together = torch.stack(draws)
    assert abs(float(torch.corrcoef(together.T)[0, 1])) < 0.25
    assert 0.4 < float(together.mean()) < 0.6


def dropped(folder: str) -> list[list[bool]]:
    """For three steps, which outputs of a dropout this rank has zeroed."""
    t = build_here(folder)
    found = []
    for step in range(3):
        t.hardware.seed(step_seed(t.run.train.seed, step, t.world.rank))
        found.append((torch.nn.functional.dropout(torch.ones(64), 0.5) == 0).tolist())
    return found


def test_dropout_differs_by_step_and_rank_and_repeats(tmp_path: Path) -> None:
    folder = write_run(["data=digits", "model=mlp", "train.global_batch=32"], tmp_path, 2)
    first = run_ranks(dropped, 2, str(folder))
    masks = [tuple(mask) for rank in first for mask in rank]
    assert len(set(masks)) == 6
    assert run_ranks(dropped, 2, str(folder)) == first


def test_a_group_has_its_own_rate() -> None:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": weights[:1], "rate": 0.1}, {"params": weights[1:]}], lr=1.0)
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.5]


class Hidden(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """No target of any sample counts."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(8) + index % 24, torch.full((8,), -100)


@pytest.mark.parametrize(("strategy", "ranks"), [("single", 1), ("localsgd", 2), ("ddp", 2)])
def test_a_batch_in_which_nothing_counts_teaches_nothing(tmp_path: Path, strategy: str, ranks: int) -> None:
    words = ["data=custom", "data.factory=test_step:Hidden", "data.classes=32", "task=language_model", "model=gpt",
             "task.ignored_targets=true", "model.width=16", "model.depth=1", "model.heads=2", "train.global_batch=16",
             "train.epochs=null", "train.steps=2", "metrics.every=1", "evaluate.every=1000"]  # fmt: skip
    train_ranks([*words, f"strategy={strategy}"], tmp_path, ranks, plugins=["test_step"])
    assert [record["loss"] for record in records(tmp_path, "train")] == [0.0, 0.0]


def test_the_norm_is_limited_before_the_numbers() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, -4.0])
    strategy = Strategy(None, World(0, 1, 0, 1, torch.device("cpu")))
    assert strategy.clip([weight], 1.0, 0.7) == 5.0
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, -0.7]))
    weight.grad = torch.tensor([3.0, torch.inf])
    assert strategy.clip([weight], None, 0.7) == torch.inf, "a number that is none is seen before it is cut off"
