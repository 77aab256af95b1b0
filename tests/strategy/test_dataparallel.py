"""torch.nn.DataParallel as accel uses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import records, train_ranks
from safetensors.torch import load_file

WORK = ["data=digits", "model=mlp", "model.widths=[16]", "train.global_batch=32", "train.epochs=null", "train.steps=8",
        "metrics.every=1", "precision=fp32"]  # fmt: skip


def train(folder: Path, *words: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    train_ranks([*WORK, *words], folder)
    losses = [record["loss"] for record in records(folder, "train")]
    return losses, load_file(folder / "checkpoints" / "latest" / "model.safetensors")


def test_without_gpus_it_is_single(tmp_path: Path) -> None:
    losses, weights = train(tmp_path / "dataparallel", "strategy=dataparallel")
    expected, expected_weights = train(tmp_path / "single")
    assert losses == expected
    assert all(torch.equal(weights[name], value) for name, value in expected_weights.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_on_gpus_it_trains_as_single(tmp_path: Path) -> None:
    losses, weights = train(tmp_path / "dataparallel", "strategy=dataparallel", "hardware=cuda")
    expected, expected_weights = train(tmp_path / "single", "hardware=cuda")
    assert losses == pytest.approx(expected, rel=1e-4)
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)
