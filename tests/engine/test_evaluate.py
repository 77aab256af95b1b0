"""An evaluation gives the same numbers on any number of ranks and for any batch: every sample counts once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import build_here, run_ranks, write_run
from torch.nn import functional

from accel_cli.engine.evaluate import evaluate

RUN = ["data=digits", "model=cnn", "model.channels=[4,8]", "train.global_batch=30"]


def evaluate_here(folder: str) -> dict[str, float]:
    return evaluate(build_here(folder), "validation")


def by_hand(folder: str) -> dict[str, float]:
    t = build_here(folder)
    data = t.data.split("validation")
    everything = torch.arange(len(data))
    inputs, targets = t.loader.finish(data.batch(everything), everything, everything)
    t.bare.eval()
    with torch.no_grad():
        logits = t.bare(inputs)
    return {
        "validation_loss": float(functional.cross_entropy(logits, targets)),
        "validation_accuracy": float((logits.argmax(1) == targets).double().mean()),
        "validation_top5_accuracy": float((logits.topk(5, 1).indices == targets[:, None]).sum()) / len(targets),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    folder = write_run(RUN, tmp_path_factory.mktemp("one"), 1)
    return run_ranks(by_hand, 1, str(folder))[0]


@pytest.mark.parametrize(("world_size", "batch"), [(1, 7), (1, 1000), (2, 64), (3, 1), (3, 100)])
def test_the_same_on_any_ranks_and_batch(
    tmp_path: Path, expected: dict[str, float], world_size: int, batch: int
) -> None:
    folder = write_run([*RUN, f"evaluate.batch={batch}"], tmp_path, world_size)
    for found in run_ranks(evaluate_here, world_size, str(folder)):
        assert found == pytest.approx(expected, rel=1e-5)
        assert found["validation_accuracy"] == pytest.approx(expected["validation_accuracy"], rel=1e-12)


def disagreeing(folder: str) -> dict[str, float]:
    """Rank 1's sums are others, as those of slices may be in their last bits."""
    t = build_here(folder)
    evaluate_batch = t.strategy.evaluate

    def off(*given: object) -> dict[str, tuple[torch.Tensor, float]]:
        return {name: (value + t.world.rank, weight) for name, (value, weight) in evaluate_batch(*given).items()}

    t.strategy.evaluate = off
    return evaluate(t, "validation")


def test_ranks_that_share_matrices_have_one_verdict(tmp_path: Path) -> None:
    words = ["data=digits", "model=mlp", "train.global_batch=30", "strategy=tensor"]
    one, other = run_ranks(disagreeing, 2, str(write_run(words, tmp_path, 2)))
    assert one == other
