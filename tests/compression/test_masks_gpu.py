"""What masks are on a GPU: no step waits for one, and sparse kernels are timed, never assumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ranks import run_ranks, train_ranks, write_run
from test_gpu import MODELS, STEPS, without_a_wait
from torch import nn
from torch.nn import functional
from torch.sparse import to_sparse_semi_structured

from accel_cli.compression.prune_2_4 import is_two_of_four
from accel_cli.engine.bought import read
from accel_cli.engine.trained import trained_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_sparse_kernels_are_timed_and_give_what_dense_ones_do(tmp_path: Path) -> None:
    wide = ["data=synthetic", "data.samples=1024", "data.shape=vector", "model=mlp", "model.widths=[4096,4096,4096]"]
    train_ranks([*wide, "hardware=cuda", "train.epochs=null", "train.steps=10", "compression=prune_2_4"], tmp_path)
    row = read(tmp_path)[-1]
    *_, change = json.loads((tmp_path / "checkpoints/finished/manifest.json").read_text())["structure"]
    found = change["record"]["sparse_milliseconds"]
    print(found, row["notes"])
    assert found["sparse_layers"] >= 2
    assert ("times as fast" in row["notes"][-1]) == (found["times"] > 1)
    model = trained_model(tmp_path, "finished").model.cuda().half()
    linear = next(m for m in model.modules() if isinstance(m, nn.Linear) and is_two_of_four(m.weight))
    inputs = torch.randn(512, linear.in_features, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        sparse = functional.linear(inputs, to_sparse_semi_structured(linear.weight), linear.bias)
        assert torch.allclose(sparse, linear(inputs), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["prune_magnitude", "prune_2_4"])
def test_no_step_waits_for_a_mask(tmp_path: Path, name: str) -> None:
    words = [*MODELS["gpt"], "hardware=cuda", "train.epochs=null", "train.steps=2000", f"compression={name}"]
    folder = write_run([*words, f"compression.passes.{name}.start=0.1"], tmp_path, 1)
    assert run_ranks(without_a_wait, 1, str(folder), STEPS) == [STEPS]
