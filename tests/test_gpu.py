"""What only a GPU shows; the same bodies as on the CPU, skipped where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ranks import build_here, run_ranks, train_ranks, write_run
from torch.sparse import to_sparse_semi_structured

from accel_cli.compression.prune_2_4 import is_two_of_four
from accel_cli.engine.bought import read
from accel_cli.engine.step import train_step
from accel_cli.engine.trained import trained_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MODELS = {
    "resnet": ["data=synthetic", "data.samples=512", "model=resnet", "model.blocks=[1,1]"],
    "gpt": ["data=stdlib_text", "data.length=64", "data.max_bytes=400000", "model=gpt", "model.depth=2"],
}
STEPS = 1000


def without_a_wait(folder: str, steps: int) -> int:
    """Steps taken while torch raises for anything that makes the host wait for the device."""
    t = build_here(folder)
    batches = t.loader.batches(0, steps + 5)
    for _ in range(5):  # kernels are chosen and state is made at the first
        train_step(t, next(batches))
        t.step += 1
    torch.cuda.set_sync_debug_mode("error")
    for _ in range(steps):
        train_step(t, next(batches))
        t.step += 1
    torch.cuda.set_sync_debug_mode("default")
    return t.step - 5


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("model", MODELS)
def test_a_step_never_waits_for_the_device(tmp_path: Path, model: str, precision: str) -> None:
    words = [*MODELS[model], f"precision={precision}", "hardware=cuda", "train.epochs=null", "train.steps=2000"]
    folder = write_run(words, tmp_path, 1)
    assert run_ranks(without_a_wait, 1, str(folder), STEPS) == [STEPS]


def first_batches(folder: str, steps: int) -> list[list[torch.Tensor]]:
    loader = build_here(folder).loader
    return [[part.cpu() for batch in micro_batches for part in batch] for micro_batches in loader.batches(0, steps)]


def test_every_loader_gives_the_same_bits_and_the_device_is_chosen(tmp_path: Path) -> None:
    base = [*MODELS["resnet"], "augment=basic", "hardware=cuda", "train.epochs=null", "train.steps=8"]
    found = {}
    for loader in ("memory", "device", "threads", "workers"):
        folder = write_run([*base, f"loader={loader}"], tmp_path / loader, 1)
        (found[loader],) = run_ranks(first_batches, 1, str(folder), 8)
    for loader, steps in found.items():
        assert all(all(map(torch.equal, *pair)) for pair in zip(steps, found["memory"], strict=True)), loader
    (name,) = run_ranks(chosen, 1, str(write_run(base, tmp_path / "auto", 1)))
    assert name == "Device"


def chosen(folder: str) -> str:
    return type(build_here(folder).loader).__name__


def test_sparse_kernels_are_timed_and_give_what_dense_ones_do(tmp_path: Path) -> None:
    wide = ["data=synthetic", "data.samples=1024", "data.shape=vector", "model=mlp", "model.widths=[4096,4096,4096]"]
    words = [*wide, "hardware=cuda", "train.epochs=null", "train.steps=10", "compression=prune_2_4"]
    train_ranks(words, tmp_path)
    (row,) = read(tmp_path)
    (change,) = json.loads((tmp_path / "checkpoints/finished/manifest.json").read_text())["structure"]
    found = change["record"]["sparse_milliseconds"]
    print(found, row["notes"])
    assert found["sparse_layers"] >= 2
    assert ("times as fast" in row["notes"][-1]) == (found["times"] > 1)
    model = trained_model(tmp_path, "finished").model.cuda().half()
    linear = next(m for m in model.modules() if isinstance(m, torch.nn.Linear) and is_two_of_four(m.weight))
    inputs = torch.randn(512, linear.in_features, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        sparse = torch.nn.functional.linear(inputs, to_sparse_semi_structured(linear.weight), linear.bias)
        assert torch.allclose(sparse, linear(inputs), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["prune_magnitude", "prune_2_4"])
def test_a_mask_costs_no_wait_and_holds(tmp_path: Path, name: str) -> None:
    words = [*MODELS["gpt"], "hardware=cuda", "train.epochs=null", "train.steps=2000", f"compression={name}"]
    key = f"compression.passes.{name}"
    words.append(f"{key}.start=0.1")
    folder = write_run(words, tmp_path, 1)
    assert run_ranks(without_a_wait, 1, str(folder), STEPS) == [STEPS]
