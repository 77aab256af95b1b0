"""accel check --deep refuses what training would, in the same words, before there are other ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import compose, run_ranks, train_here, write_run
from torch import nn

from accel_cli.config import factory
from accel_cli.engine import deep_check
from accel_cli.errors import ConfigError

HERE = ["test_deep_check"]
DIGITS = ["data=digits", "train.global_batch=32", "train.epochs=null", "train.steps=1"]
MLP = [*DIGITS, "model=mlp", "model.widths=[16,16]"]
GPT = ["data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16", "model.depth=2",
       "model.heads=2", "train.global_batch=16"]  # fmt: skip
ONE = [*DIGITS, "model=custom", "model.factory=test_deep_check:One"]


class One(nn.Module):
    """A layer that nothing can be cut from."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(64, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.out(inputs.flatten(1))


REFUSED: dict[str, tuple[int, list[str]]] = {
    "pipeline of one layer": (2, [*ONE, "strategy=pipeline"]),
    "no such place to cut": (2, [*MLP, "strategy=pipeline", "strategy.cut=[nowhere]"]),
    "layers of one layer": (1, [*ONE, "strategy=layers", "strategy.devices=[cpu,cpu]"]),
    "tensor of one layer": (2, [*ONE, "strategy=tensor"]),
    "more ranks than heads": (3, [*GPT, "strategy=tensor", "model.width=24", "strategy.plan={blocks.*.qkv: colwise}"]),
    "in a mesh": (4, [*ONE, "strategy=mesh", "strategy.shard=2", "strategy.tensor=2"]),
    "no blocks": (1, [*ONE, "train.activation_checkpointing=blocks"]),
}


def problems(words: list[str], ranks: int) -> list[dict[str, Any]]:
    factory.grant(HERE)
    with pytest.raises(ConfigError) as caught:
        deep_check.check(compose(words, ranks, HERE))
    return [vars(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("case", REFUSED)
def test_what_training_refuses(tmp_path: Path, case: str) -> None:
    ranks, words = REFUSED[case]
    folder = write_run(words, tmp_path, ranks, HERE)
    assert run_ranks(train_here, ranks, str(folder), False, None, HERE) == [2] * ranks
    told = json.loads((folder / "ranks" / "0.failure.json").read_text())["problems"]
    assert problems(words, ranks) == told


@pytest.mark.parametrize("words", [["strategy=pipeline"], ["strategy=tensor"], ["strategy=layers"]], ids=str)
def test_and_nothing_else(words: list[str]) -> None:
    deep_check.check(compose([*GPT, *words], 1 if words == ["strategy=layers"] else 2))
