"""A linear probe: on features where nothing is drawn, else through the frozen model; the same function either way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import train_ranks
from test_frozen_features import BATCH, SHORT, Task, losses, weights
from test_resume import assert_equal_runs, back_to
from test_transfer import make
from torch import Tensor, nn

BASIC = ["augment=basic", "augment.transforms.basic.crop=2"]
DROPS = [*SHORT, "model=cnn", "model.channels=[8,16]", "model.dropout=0.5"]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before")
    train_ranks([*DROPS, "train.steps=8", "evaluate.every=8", "checkpoint.every=8"], folder)
    return folder


def kept(folder: Path) -> list[Path]:
    return list((folder / "accel").glob("outputs*")) if (folder / "accel").is_dir() else []


def test_where_nothing_is_drawn_it_is_trained_on_features(before: Path, tmp_path: Path) -> None:
    words = [*DROPS, f"transfer.weights={before}"]
    train_ranks([*words, "transfer=linear_probe"], tmp_path / "probe", cache=tmp_path / "one")
    train_ranks([*words, "transfer=frozen_features"], tmp_path / "features", cache=tmp_path / "two")
    assert kept(tmp_path / "one")
    assert torch.equal(losses(tmp_path / "probe"), losses(tmp_path / "features"))


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
def test_where_something_is_every_epoch_draws_anew(before: Path, tmp_path: Path, strategy: str) -> None:
    """Only the head moves: neither statistics nor weights before it; and a resume goes on."""
    words = [*DROPS, *BASIC, f"transfer.weights={before}", "transfer=linear_probe", f"strategy={strategy}"]
    ranks = 1 if strategy == "single" else 2
    train_ranks(words, tmp_path / "run", ranks, cache=tmp_path)
    assert not kept(tmp_path)
    first, last = weights(before), weights(tmp_path / "run")
    assert {name for name in last if not torch.equal(first[name], last[name])} == {"head.weight", "head.bias"}
    back_to(8, tmp_path / "run", tmp_path / "resumed")
    train_ranks([], tmp_path / "resumed", ranks, resume=True, cache=tmp_path)
    assert_equal_runs(tmp_path / "resumed", tmp_path / "run", 12)


def test_through_the_model_the_losses_are_those_on_features(before: Path, tmp_path: Path) -> None:
    """Under fsdp no rank holds the model, so that it is run in every step: dropout before the head is of evaluation."""
    words = [*DROPS, f"transfer.weights={before}", "transfer=linear_probe"]
    train_ranks(words, tmp_path / "features", cache=tmp_path)
    train_ranks([*words, "strategy=fsdp"], tmp_path / "through", 2, cache=tmp_path)
    assert torch.allclose(losses(tmp_path / "through"), losses(tmp_path / "features"), rtol=1e-5, atol=0)


class Deep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.drop(self.body(x)))


@pytest.mark.parametrize("head", ["auto", "head"])
def test_only_a_head_of_several_layers_is_in_training_mode(head: str) -> None:
    model = Deep().eval()
    transfer = make("linear_probe", head=head)
    assert transfer.frozen_modules(model) == []
    found = transfer.head(model, Task(), BATCH, 2)
    assert (found.name, found.always) == ({"auto": "head.2", "head": "head"}[head], False)
    model.train()
    for module in transfer.frozen_modules(model):
        module.eval()
    assert model.drop.training is False
    assert model.head[1].training is (head == "head")
