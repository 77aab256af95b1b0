"""What only a GPU shows; the same bodies as on the CPU, skipped where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run
from test_resume import assert_equal_runs, back_to

from accel_cli.engine.step import train_step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

MODELS = {
    "resnet": ["data=synthetic", "data.samples=512", "model=resnet", "model.blocks=[1,1]"],
    "gpt": ["data=stdlib_text", "data.length=64", "data.max_bytes=400000", "model=gpt", "model.depth=2"],
}
GPU = ["hardware=cuda", "train.epochs=null"]
LEVERS = {
    "augment": ["augment=[color_jitter,randaugment,flip,crop,rotate,scale,cutout,mixup]"],
    "clip": ["train.clip_norm=0.1", "train.clip_value=0.01"],
    "average": ["train.ema=0.9"],
    "slow weights": ["train.lookahead=5"],
    "micro-batches": ["train.micro_batch=16"],
    "channels_last": ["hardware.memory_format=channels_last"],
    "host": ["loader=memory"],
    "threads": ["loader=threads"],
    "sgd": ["optimizer=sgd", "schedule=onecycle"],
    "fsdp": ["strategy=fsdp"],
    "compiled": ["compile=full"],
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
    words = [*MODELS[model], f"precision={precision}", *GPU, "train.steps=2000"]
    folder = write_run(words, tmp_path, 1)
    assert run_ranks(without_a_wait, 1, str(folder), STEPS) == [STEPS]


@pytest.mark.parametrize("lever", LEVERS)
def test_no_lever_makes_a_step_wait(tmp_path: Path, lever: str) -> None:
    words = [*MODELS["resnet"], "precision=bf16", *GPU, "train.steps=2000", *LEVERS[lever]]
    folder = write_run(words, tmp_path, 1)
    assert run_ranks(without_a_wait, 1, str(folder), 20) == [20]


def first_batches(folder: str, steps: int) -> list[list[torch.Tensor]]:
    loader = build_here(folder).loader
    return [[part.cpu() for batch in micro_batches for part in batch] for micro_batches in loader.batches(0, steps)]


def test_every_loader_gives_the_same_bits_and_the_device_is_chosen(tmp_path: Path) -> None:
    base = [*MODELS["resnet"], "augment=basic", *GPU, "train.steps=8"]
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


RESUMED = {
    "fp32": ["precision=fp32", "train.ema=0.9"],
    "tf32": ["precision=tf32", "train.micro_batch=16"],
    "bf16": ["precision=bf16", "train.clip_norm=0.1"],
    "fp16": ["precision=fp16", "precision.growth_interval=3"],
    "fsdp": ["precision=bf16", "strategy=fsdp"],
    "compiled": ["precision=bf16", "compile=blocks"],
}


@pytest.mark.parametrize("kind", RESUMED)
@pytest.mark.parametrize("model", MODELS)
def test_with_exact_kernels_ten_steps_are_five_and_five(tmp_path: Path, model: str, kind: str) -> None:
    words = [*MODELS[model], *GPU, *RESUMED[kind], "train.determinism=exact", "train.steps=10", "metrics.every=1",
             "checkpoint.every=1", "checkpoint.keep_last=100", "evaluate.every=5"]  # fmt: skip
    if model == "gpt":
        words.append("model.dropout=0.2")
    else:
        words.append("augment=[color_jitter,flip,crop,rotate,mixup]")
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks(words, straight)
    back_to(5, straight, resumed)
    train_ranks([], resumed, resume=True)
    assert_equal_runs(resumed, straight)


CLOSE = {"fp32": 1e-5, "tf32": 2e-3, "bf16": 2e-2, "fp16": 2e-2}


@pytest.mark.parametrize("model", MODELS)
def test_it_learns_as_on_the_cpu(tmp_path: Path, model: str) -> None:
    words = [*MODELS[model], "train.epochs=null", "train.steps=20", "metrics.every=1", "optimizer=sgd",
             "optimizer.learning_rate=0.05"]  # fmt: skip
    train_ranks([*words, "hardware=cpu"], tmp_path / "cpu")
    expected = torch.tensor([record["loss"] for record in records(tmp_path / "cpu", "train")])
    for precision, close in CLOSE.items():
        train_ranks([*words, "hardware=cuda", f"precision={precision}"], tmp_path / precision)
        found = torch.tensor([record["loss"] for record in records(tmp_path / precision, "train")])
        assert ((found - expected).abs() / expected).max() < close, precision


@pytest.mark.parametrize("words", [["compile=full"], ["compile=blocks"], ["compile=full", "compile.cuda_graphs=true"]])
def test_compiled_steps_learn_as_eager_ones(tmp_path: Path, words: list[str]) -> None:
    base = [*MODELS["gpt"], *GPU, "train.steps=20", "metrics.every=1"]
    train_ranks(base, tmp_path / "eager")
    train_ranks([*base, *words], tmp_path / "compiled")
    eager, compiled = (
        torch.tensor([record["loss"] for record in records(tmp_path / kind, "train")]) for kind in ("eager", "compiled")
    )
    assert ((eager - compiled).abs() / eager).max() < 1e-4


def test_a_caller_that_uses_the_gpu_itself_can_train(tmp_path: Path) -> None:
    """Ranks are forked, and no fork of a process that has touched a GPU can use it: they are another process's."""
    code = (
        "import torch, accel_cli; torch.zeros(1, device='cuda'); "
        "print(accel_cli.train(['train.epochs=null', 'train.steps=3'])['device'])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.stdout.split()[-1:] == ["cuda"], ended.stderr
