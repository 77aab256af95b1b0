"""DiLoCo: the outer step, what travels for it, and exchanges that run beside the next steps."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import build_here, records, run_ranks, train_ranks, write_run
from test_parity import WORK, train
from test_resume import RUN, SMALL, STATE, assert_equal_runs, back_to
from torch import nn

from accel_cli.engine.checkpoint import Checkpoints, restore
from accel_cli.engine.checkpoint_files import newest
from accel_cli.engine.step import train_step
from accel_cli.strategy.diloco import Fragment, divide
from accel_cli.strategy.exchange import Exchange
from accel_cli.strategy.replicas import flat
from accel_cli.world import World, join

PLAIN_AVERAGE = ["strategy=diloco", "strategy.steps=1", "strategy.outer_learning_rate=1.0",
                 "strategy.outer_momentum=0.0", "strategy.compression=none"]  # fmt: skip
ONE = World(0, 1, 0, 1, torch.device("cpu"))


def test_averaged_after_every_step_it_is_one_process(tmp_path: Path) -> None:
    batches, losses, _ = train(tmp_path / "one", WORK["mlp"], 1)
    own_batches, own, _ = train(tmp_path / "two", [*WORK["mlp"], *PLAIN_AVERAGE], 2)
    assert own_batches == batches
    assert own == pytest.approx(losses, rel=1e-5)


def fragment(**settings: Any) -> tuple[Fragment, nn.Parameter]:
    config = {"steps": 4, "outer_learning_rate": 0.7, "outer_momentum": 0.9, "nesterov": True, "overlap": 0}
    parameter = nn.Parameter(torch.arange(6.0).view(2, 3))
    found = Fragment([parameter], 0, SimpleNamespace(**{**config, **settings}), Exchange(ONE))
    found.begin()
    return found, parameter


@pytest.mark.parametrize("nesterov", [True, False])
@torch.no_grad()
def test_the_outer_step_is_torchs_sgd_on_what_was_learned(nesterov: bool) -> None:
    found, parameter = fragment(nesterov=nesterov)
    outer = nn.Parameter(parameter.detach().clone())
    reference = torch.optim.SGD([outer], lr=0.7, momentum=0.9, nesterov=nesterov)
    for number in range(3):
        parameter += torch.randn(2, 3, generator=torch.Generator().manual_seed(number))
        outer.grad = outer - parameter
        found.start()
        found.apply(found.mean())
        reference.step()
        torch.testing.assert_close(parameter, outer)


@torch.no_grad()
def test_an_overlapped_exchange_takes_nothing_away_from_the_steps_beside_it() -> None:
    found, parameter = fragment(overlap=2, outer_learning_rate=1.0, outer_momentum=0.0)
    parameter += 1
    found.start()
    began = parameter.clone()
    parameter += 10
    found.apply(found.mean())
    torch.testing.assert_close(parameter.detach(), began + 10)
    assert found.outer is not None
    torch.testing.assert_close(found.outer.view(2, 3), began)


def test_a_fragments_turn_comes_once_a_round() -> None:
    exchange = Exchange(ONE)
    for turn in (0, 1, 3):
        found = Fragment([], turn, SimpleNamespace(steps=4), exchange)
        assert [step + 1 for step in range(-5, 12) if found.is_due(step)] == [n for n in range(1, 13) if n % 4 == turn]


def test_a_model_is_divided_in_order_into_like_parts() -> None:
    parameters = [nn.Parameter(torch.empty(size)) for size in (10, 1, 9, 20, 15, 5)]
    assert [[p.numel() for p in part] for part in divide(parameters, 3)] == [[10, 1, 9], [20], [15, 5]]
    assert [[p.numel() for p in part] for part in divide(parameters[3:4], 3)] == [[20]]


def means(poison: bool) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """(the mean by int8 in the background, the exact one, bytes of each)"""
    world = join(torch.device("cpu"), "gloo", 30.0)
    values = torch.randn(30_001, generator=torch.Generator().manual_seed(world.rank))
    values[:256] *= 1e-6  # a block of its own scale
    values[256:512] = 0
    if poison and world.rank == 1:
        values[1000] = torch.inf
    exact, compressed = Exchange(world), Exchange(world, "int8", background=True)
    found = compressed.start(values.clone()).result()
    return found, exact.exact_mean(values), compressed.bytes_sent, exact.bytes_sent


@pytest.mark.parametrize("world_size", [2, 3])
def test_int8_is_near_the_mean_the_same_on_all_ranks_and_a_quarter_of_the_bytes(world_size: int) -> None:
    results = run_ranks(means, world_size, False)
    found, exact, sent, exact_sent = results[0]
    assert all(torch.equal(found, other) for other, *_ in results)
    blocks = torch.nn.functional.pad(exact, (0, -len(exact) % 256)).view(-1, 256)
    error = torch.nn.functional.pad(found - exact, (0, -len(exact) % 256)).view(-1, 256).abs().amax(1)
    # Half a step when it is sent, half when the mean is: a block's largest of single ranks is some times the mean's.
    assert bool((error <= 3 * blocks.abs().amax(1) / 127).all())
    assert bool((found[256:512] == 0).all())
    assert error[0] < 1e-6
    assert error.max() > 0
    assert sent < 0.27 * exact_sent


def test_a_number_that_is_none_gets_through_int8() -> None:
    results = run_ranks(means, 2, True)
    assert all(not bool(found.isfinite().all()) for found, *_ in results)


def test_int8_trains_as_fp32_does(tmp_path: Path) -> None:
    work = ["data=digits", "model=mlp", "train.epochs=3", "strategy=diloco", "strategy.steps=10"]
    exact = train_ranks([*work, "strategy.compression=none"], tmp_path / "exact", 2)
    int8 = train_ranks([*work, "evaluate.every=50"], tmp_path / "int8", 2)
    assert exact["metric"]["value"] > 0.85
    assert int8["metric"]["value"] == pytest.approx(exact["metric"]["value"], abs=0.02)
    losses = [records(tmp_path / name, "train")[-1]["loss"] for name in ("exact", "int8")]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]
    assert int8["communication_bytes"] < exact["communication_bytes"]


OVERLAP = ["strategy=diloco", "strategy.steps=4", "strategy.overlap=2"]
RESUMED: dict[str, list[str]] = {
    "rounds": [*SMALL, *STATE, "strategy=diloco", "strategy.steps=4"],
    "overlap": [*SMALL, *OVERLAP],
    "fragments": [*SMALL, *OVERLAP, "strategy.fragments=3", "strategy.compression=none", "train.ema=0.9"],
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_resumed_within_a_round_repeats_bit_for_bit(tmp_path: Path, name: str) -> None:
    """Step 5 lies between the exchange that began after step 4 and its end after step 6."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks([*RUN, *RESUMED[name]], straight, 2)
    back_to(5, straight, resumed)
    summary = train_ranks([], resumed, 2, resume=True)
    assert_equal_runs(resumed, straight)
    assert summary["communication_bytes"] == json.loads((straight / "summary.json").read_text())["communication_bytes"]


def saved_at_once(folder: str) -> torch.Tensor:
    """The outer weights after a step from a checkpoint that was saved before the first one."""
    t = build_here(folder)
    checkpoints = Checkpoints(t, Path(folder), "a run")
    checkpoints.save({})
    checkpoints.finish()
    t.world.barrier()
    restore(t, newest(Path(folder))[0])
    before = flat(t.parameters)
    train_step(t, next(t.loader.batches(0, 1)))
    outer = torch.cat([fragment.outer for fragment in t.strategy.fragments])
    assert torch.equal(outer, before)
    return outer


def test_a_run_saved_before_its_first_step_goes_on(tmp_path: Path) -> None:
    work = ["data=digits", "model=mlp", "model.widths=[16]", "train.global_batch=32", "strategy=diloco"]
    one, other = run_ranks(saved_at_once, 2, str(write_run(work, tmp_path, 2)))
    assert torch.equal(one, other)


def test_overlap_changes_what_is_trained_only_by_its_delay(tmp_path: Path) -> None:
    work = ["data=digits", "model=mlp", "train.epochs=3", "strategy=diloco", "strategy.steps=10",
            "strategy.outer_momentum=0.0", "strategy.outer_learning_rate=1.0"]  # fmt: skip
    at_once = train_ranks(work, tmp_path / "at_once", 2)
    overlapped = train_ranks([*work, "strategy.overlap=5"], tmp_path / "overlapped", 2)
    assert at_once["metric"]["value"] > 0.85
    assert overlapped["metric"]["value"] == pytest.approx(at_once["metric"]["value"], abs=0.02)
