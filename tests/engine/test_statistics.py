"""A batch of nan spoils neither weights nor running statistics: the run goes on, evaluates and saves."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ranks import records, train_ranks
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import TensorDataset

from accel_cli.engine.statistics import Statistics

WORDS = [
    "data=custom", "data.factory=test_statistics:with_nan", "data.classes=4", "model=cnn", "model.channels=[4,8]",
    "train.global_batch=16", "train.epochs=4", "metrics.every=2", "evaluate.every=8", "checkpoint.every=8",
]  # fmt: skip


def with_nan(split: str) -> TensorDataset:
    """64 images; in training the first holds a nan."""
    draw = torch.Generator().manual_seed(len(split))
    images = torch.randn(64, 1, 8, 8, generator=draw)
    if split == "train":
        images[0, 0, 0, 0] = math.nan
    return TensorDataset(images, torch.arange(64) % 4)


@pytest.mark.parametrize("world_size", [1, 2])
def test_it_goes_on_after_a_nan(tmp_path: Path, world_size: int) -> None:
    summary = train_ranks(WORDS, tmp_path, world_size, plugins=["test_statistics"])
    assert sum(record["skipped_steps"] for record in records(tmp_path, "train")) == 4, "one an epoch"
    losses = [record["validation_loss"] for record in records(tmp_path, "evaluation") if "validation_loss" in record]
    assert losses
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert summary["metric"]["value"] is not None
    saved = load_file(tmp_path / "checkpoints" / "latest" / "model.safetensors")
    statistics = {name: value for name, value in saved.items() if "running" in name}
    assert statistics
    for name, value in statistics.items():
        assert value.isfinite().all(), name
        assert not torch.equal(value, torch.zeros_like(value)), f"{name} was never updated"


def test_only_what_is_spoiled_is_put_back() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3))
    kept = Statistics(model)
    model[0].running_mean.fill_(1.0)
    model[1].running_mean.fill_(1.0)
    assert kept.settle(skipped=False) == 0
    model[0].running_mean.fill_(math.nan)
    model[1].running_mean.fill_(2.0)
    assert kept.settle(skipped=True) == 1
    assert model[0].running_mean.tolist() == [1.0] * 2
    assert model[1].running_mean.tolist() == [2.0] * 3
