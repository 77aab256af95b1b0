"""The law of loaders: whichever reads, the weights after some steps are the same bits, dropout and augmentation on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import train_ranks
from test_resume import assert_equal_runs
from torch.utils.data import Dataset

from accel_cli.config.parts import table

OPTIONS = {
    "auto": [],
    "memory": [],
    "device": [],
    "threads": ["loader.threads=2"],
    "workers": ["loader.workers=1"],
}
RUN = [
    "data=custom", "data.factory=test_weights:make", "model=cnn", "model.channels=[4,8]", "model.dropout=0.3",
    "augment=basic", "train.global_batch=16", "train.epochs=null", "train.steps=6", "metrics.every=1",
    "evaluate.every=3", "checkpoint.every=6",
]  # fmt: skip


class Images(Dataset):
    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        return torch.arange(64, dtype=torch.uint8).view(1, 8, 8) * (index % 5) + index % 3, index % 3


def make(split: str) -> Images:
    return Images()


def trained(folder: Path, option: str, world_size: int) -> Path:
    words = [*RUN, f"loader={option}", *OPTIONS[option]]
    train_ranks(words, folder / option, world_size, plugins=["test_weights"])
    return folder / option


@pytest.mark.parametrize("world_size", [1, 2])
def test_the_weights_are_the_same_bits(tmp_path: Path, world_size: int) -> None:
    assert {*OPTIONS, "stream"} == set(table("loader"))  # stream: its own data, in tests/data/test_data_shards.py
    expected = trained(tmp_path, "memory", world_size)
    for option in ["device", "threads", "workers"] if world_size == 1 else ["threads", "auto"]:
        assert_equal_runs(trained(tmp_path, option, world_size), expected, 6)
