"""Ranks that would begin with different models are told so, all of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from ranks import run_ranks, train_here, write_run
from torch import nn

from accel_cli.engine.same_start import digest, near
from accel_cli.launch import first_failure

HERE = ["test_same_start"]
RUN = ["data=digits", "model=custom", "model.factory=test_same_start:Own", "train.global_batch=32",
       "train.epochs=null", "train.steps=1"]  # fmt: skip


class Own(nn.Module):
    """Draws some of its weights from the system's own source."""

    def __init__(self, unseeded: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 16), nn.Linear(16, 10)
        if unseeded:
            generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "big"))
            nn.init.normal_(self.second.weight, std=0.02, generator=generator)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(inputs.flatten(1)).relu())


@pytest.mark.parametrize("strategy", ["fsdp", "localsgd"])
@pytest.mark.parametrize("unseeded", [True, False])
def test_only_equal_models_are_trained(tmp_path: Path, strategy: str, unseeded: bool) -> None:
    words = [*RUN, f"strategy={strategy}", f"model.args.unseeded={str(unseeded).lower()}"]
    folder = write_run(words, tmp_path, 2, HERE)
    assert run_ranks(train_here, 2, str(folder), False, None, HERE) == ([2, 2] if unseeded else [0, 0])
    if unseeded:
        problems = first_failure.find(folder, []).problems
        assert problems is not None
        assert "rank 1 begins with another second.weight" in problems[0]["why"]


def test_last_bits_are_no_difference_and_numbers_that_are_none_are_themselves() -> None:
    model = nn.BatchNorm1d(1000)
    nn.init.normal_(model.weight)
    before = digest(model)
    with torch.no_grad():
        model.weight *= 1 + 1e-7 * torch.randn(1000)
    assert all(near(before[name], after) for name, after in digest(model).items())
    with torch.no_grad():
        model.weight[3] += 0.1
        model.bias[0] = torch.nan
    after = digest(model)
    assert not near(before["weight"], after["weight"])
    assert not near(before["bias"], after["bias"])
    assert near(after["bias"], digest(model)["bias"])
