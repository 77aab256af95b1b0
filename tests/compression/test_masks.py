"""Masks: the right weights fall, as many as asked, when asked; they stay zero, in any layout and after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import build_here, run_ranks, train_ranks, write_run
from safetensors.torch import load_file
from test_resume import assert_equal_runs, back_to
from torch import Tensor, nn

from accel_cli.compression.prune_2_4 import smallest_two
from accel_cli.compression.prune_magnitude import PruneMagnitude
from accel_cli.config.schema.compression import PruneMagnitude as Config
from accel_cli.engine.step import train_step
from accel_cli.errors import ConfigError

STEPS = 12
RUN = [
    "data=digits", "train.global_batch=32", "train.epochs=null", f"train.steps={STEPS}", "metrics.every=1",
    "evaluate.every=6", "checkpoint.every=3", "checkpoint.keep_last=9", "optimizer=adamw",
    "optimizer.learning_rate=0.01", "model=cnn", "model.channels=[8,16]", "model.normalisation=group",
]  # fmt: skip
KEY = "compression.passes.prune_magnitude"
OWN = ["sparsity=0.8", "start=0.2", "end=0.7", "times=3"]
MAGNITUDE = ["compression=prune_magnitude", *(f"{KEY}.{word}" for word in OWN)]
TWO_OF_FOUR = ["compression=prune_2_4", "compression.passes.prune_2_4.start=0.3"]
PASSES = {
    "global": MAGNITUDE,
    "layer": [*MAGNITUDE, f"{KEY}.scope=layer", "train.ema=0.9"],
    "rewind": [*MAGNITUDE, f"{KEY}.rewind=0.1", f"{KEY}.schedule=geometric", "train.lookahead=2"],
    "two of four": [*TWO_OF_FOUR, "train.ema=0.9"],
}
CASES = [(name, strategy) for name in PASSES for strategy in ("single", "ddp", "fsdp")]


def settings(**other: Any) -> Config:
    own = {
        "option": "prune_magnitude", "sparsity": 0.9, "scope": "global", "schedule": "cubic", "start": 0.1, "end": 0.7,
        "times": 3, "only": None, "keep": [], "rewind": None,
    }  # fmt: skip
    return Config(**{**own, **other})


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first = nn.Conv2d(1, 8, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return nn.Sequential(
        first, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 20), nn.LayerNorm(20), nn.Embedding(7, 20)
    )


def test_the_schedules_are_the_papers() -> None:
    cubic = PruneMagnitude(settings(times=4)).times(100)
    assert list(cubic) == [25, 40, 55, 70]
    assert list(cubic.values()) == pytest.approx([0.9 * (1 - (1 - n / 4) ** 3) for n in (1, 2, 3, 4)])
    left = [1.0, *(1 - share for share in PruneMagnitude(settings(schedule="geometric")).times(100).values())]
    assert [b / a for a, b in zip(left, left[1:], strict=False)] == pytest.approx([0.1 ** (1 / 3)] * 3)
    assert PruneMagnitude(settings(schedule="one_shot", start=0.0)).times(100) == {1: 0.9}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_fall_and_no_more(scope: str) -> None:
    model = net()
    part = PruneMagnitude(settings(scope=scope, schedule="one_shot", sparsity=0.75, start=0.5))
    assert part.borders(10) == (4, 10)  # before the first cut, and at the end
    part.attach(model)
    assert list(part.weights) == ["0.weight", "3.weight"]
    before = [weight.detach().clone() for weight in part.weights.values()]
    sets = [torch.cat([w.flatten() for w in before])] if scope == "global" else [w.flatten() for w in before]
    expected = [torch.sort(values.abs()).values[round(0.75 * len(values)) - 1] for values in sets]
    part.after_step(model, 3)
    assert all(map(torch.equal, part.weights.values(), before))
    part.after_step(model, 4)
    for number, (weight, was) in enumerate(zip(part.weights.values(), before, strict=True)):
        limit = expected[number % len(expected)]
        assert torch.equal(weight, torch.where(was.abs() <= limit, 0.0, was))


def test_patterns_say_which() -> None:
    part = PruneMagnitude(settings(only=["5.*", "3.*"], keep=["*.bias"]))
    assert list(part.select(net())) == ["3.weight", "5.weight"]
    for wrong, text in (({"only": ["nowhere*"]}, "matches no parameter"), ({"keep": ["*"]}, "has none")):
        with pytest.raises(ConfigError, match=text):
            PruneMagnitude(settings(**wrong)).check(net(), None, None)


def test_two_of_every_four_along_the_inputs() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 8, 3, 3).to(memory_format=torch.channels_last)
    chosen = smallest_two(weight)
    fours = weight.abs().movedim(1, -1).reshape(6, 3, 3, 2, 4)
    fallen = chosen.movedim(1, -1).reshape(6, 3, 3, 2, 4)
    assert (fallen.sum(-1) == 2).all()
    assert (fours.where(fallen, 0.0).amax(-1) <= fours.where(~fallen, 9.0).amin(-1)).all()
    assert torch.equal(smallest_two(torch.ones(1, 4)), torch.tensor([[True, True, False, False]]))


def weights_of(folder: Path, step: int, file: str = "model") -> dict[str, Tensor]:
    found = load_file(folder / "checkpoints" / f"step-{step:08d}" / f"{file}.safetensors")
    return {name: value for name, value in found.items() if value.dim() > 1}


@pytest.mark.parametrize(("name", "strategy"), CASES)
def test_a_resume_goes_on_bit_for_bit_and_what_is_evaluated_has_the_zeros(
    tmp_path: Path, name: str, strategy: str
) -> None:
    ranks = 1 if strategy == "single" else 2
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    words = [*RUN, *PASSES[name], f"strategy={strategy}"]
    train_ranks(words, straight, ranks)
    back_to(6, straight, resumed)
    train_ranks([], resumed, ranks, resume=True)
    assert_equal_runs(resumed, straight, STEPS)
    live = weights_of(straight, STEPS)
    is_averaged = any(word.startswith(("train.ema", "train.lookahead")) for word in words)
    for tensors in (live, weights_of(straight, STEPS, "average")) if is_averaged else (live,):
        if name == "two of four":
            fit = {n: v for n, v in tensors.items() if v.shape[1] % 4 == 0}
            assert fit
            assert all((v.movedim(1, -1).reshape(-1, 4) == 0).sum(1).eq(2).all() for v in fit.values())
        else:
            zeros, count = (sum(f(v) for v in tensors.values()) for f in (lambda v: int((v == 0).sum()), Tensor.numel))
            assert abs(zeros - 0.8 * count) <= len(tensors)


def masks_after(folder: str) -> dict[str, Tensor]:
    """Whole masks, after steps that the weights have not felt."""
    t = build_here(folder)
    batches = t.loader.batches(0, STEPS)
    for _ in range(STEPS):
        train_step(t, next(batches))
        t.step += 1
    (part,) = t.passes.values()
    found: dict[str, Tensor] = t.strategy.gather(part.state())
    return found


@pytest.mark.parametrize("name", ["global", "layer", "two of four"])
def test_every_layout_finds_the_same_mask(tmp_path: Path, name: str) -> None:
    still = [*RUN, *PASSES[name], "optimizer.learning_rate=1e-30", "optimizer.weight_decay=0"]
    words = list({word.partition("=")[0]: word for word in still}.values())
    one = run_ranks(masks_after, 1, str(write_run(words, tmp_path / "one", 1)))[0]
    assert sum(int(mask.sum()) for mask in one.values())
    for strategy in ("ddp", "fsdp"):
        folder = write_run([*words, f"strategy={strategy}"], tmp_path / strategy, 2)
        many = run_ranks(masks_after, 2, str(folder))[0]
        assert many.keys() == one.keys()
        assert all(torch.equal(many[key], mask) for key, mask in one.items()), strategy


def test_a_rewind_goes_back_to_the_first_weights(tmp_path: Path) -> None:
    words = [*RUN, *MAGNITUDE, f"{KEY}.rewind=0", f"{KEY}.schedule=one_shot", f"{KEY}.start=0.5", "checkpoint.every=6"]
    words = list({word.partition("=")[0]: word for word in words}.values())
    train_ranks(words, tmp_path)
    state = load_file(tmp_path / "checkpoints" / "step-00000006" / "compression.safetensors")
    cut = load_file(tmp_path / "checkpoints" / "step-00000006" / "model.safetensors")
    for key, first in state.items():
        _, kind, name = key.split("/")
        if kind == "rewind":
            mask = state.get(f"prune_magnitude/mask/{name}", torch.zeros(first.shape)).bool()
            assert torch.equal(cut[name], first.masked_fill(mask, 0))


def test_masks_that_break_the_floor_are_taken_off_again(tmp_path: Path) -> None:
    words = [*RUN, "train.steps=40", "evaluate.every=20", "checkpoint.every=20"]
    masks = ["compression=prune_magnitude", f"{KEY}.sparsity=0.99", f"{KEY}.start=0.9", f"{KEY}.schedule=one_shot"]
    summary = train_ranks([*words, *masks, "compression.floor=0.0"], tmp_path / "broken")
    (row,) = summary["compression"]
    assert row["status"] == "rolled back"
    assert row["recovered"] < row["before"]["metric"]
    train_ranks(words, tmp_path / "dense")
    assert_equal_runs(tmp_path / "broken", tmp_path / "dense", 40)
