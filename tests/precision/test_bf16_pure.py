"""Everything in bf16: half of the bytes, norms apart, and a model that can be used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import build_here, run_ranks, train_ranks, write_run
from torch import nn

import accel_cli
from accel_cli.engine.step import train_step
from accel_cli.strategy.base import squares

CNN = ["data=digits", "model=cnn", "train.global_batch=64"]
GPT = ["data=stdlib_text", "data.length=16", "data.max_bytes=8000", "model=gpt", "model.width=32", "model.depth=2",
       "model.heads=2", "train.global_batch=16", "train.epochs=null", "train.steps=2"]  # fmt: skip


def test_it_learns_in_half_of_the_bytes_and_can_be_loaded(tmp_path: Path) -> None:
    words = [*CNN, "train.epochs=3", "optimizer.beta2=0.99"]
    full = train_ranks([*words, "train.epochs=1"], tmp_path / "fp32")
    pure = train_ranks([*words, "precision=bf16_pure"], tmp_path / "pure")
    assert pure["metric"]["value"] > 0.9
    assert 0.5 < pure["model_bytes"] / full["model_bytes"] < 0.58
    trained = accel_cli.load(tmp_path / "pure")
    assert len(trained.predict(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))) == 2


def types(folder: str) -> dict[str, set[torch.dtype]]:
    """dtypes of the weights, of gradients as the optimizer sees them, and of what it keeps; norms apart."""
    t = build_here(folder)
    batches = t.loader.batches(0, 2)
    seen: set[torch.dtype] = set()
    norms = {p for m in t.bare.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    rest = [p for p in t.parameters if p not in norms]
    t.optimizer.register_step_pre_hook(lambda *_: seen.update(p.grad.dtype for p in rest if p.grad is not None))
    for _ in range(2):
        train_step(t, next(batches))
        t.step += 1
    kept = {v.dtype for p in rest for v in t.optimizer.state[p].values() if torch.is_tensor(v) and v.dim()}
    return {"weights": {p.dtype for p in rest}, "gradients": seen, "kept": kept, "norms": {p.dtype for p in norms}}


@pytest.mark.parametrize(("strategy", "world_size"), [("single", 1), ("fsdp", 2)])
def test_all_but_norms_is_bf16(tmp_path: Path, strategy: str, world_size: int) -> None:
    folder = write_run(
        [*GPT, f"strategy={strategy}", "precision=bf16_pure", "train.clip_norm=0.1"], tmp_path, world_size
    )
    pure = {torch.bfloat16}
    for found in run_ranks(types, world_size, str(folder)):
        assert found == {"weights": pure, "gradients": pure, "kept": pure, "norms": {torch.float32}}


def test_the_norm_of_bf16_gradients_is_added_in_fp32() -> None:
    gradients = [torch.full((1000,), 0.3, dtype=torch.bfloat16), torch.ones(7)]
    exact = sum(g.double().square().sum() for g in gradients)
    assert float(squares(gradients, torch.device("cpu"))) == pytest.approx(float(exact), rel=1e-6)
