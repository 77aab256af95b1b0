"""Replicas that train by themselves: what they agree on, and that nothing of theirs is lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, build_here, records, run_ranks, train_here, train_ranks, write_run
from safetensors.torch import load_file
from test_parity import WORK, train
from test_resume import RUN, SMALL, STATE, assert_equal_runs, back_to

from accel_cli.engine import checkpoint_replicas
from accel_cli.engine.checkpoint import Checkpoints, restore
from accel_cli.engine.checkpoint_files import newest
from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.step import train_step
from accel_cli.engine.training import Training
from accel_cli.errors import DivergedError

PARITY = ["test_parity"]
MLP = ["data=digits", "model=mlp", "model.widths=[16]", "train.global_batch=32", "train.epochs=null"]
LOCAL = ["strategy=localsgd", "strategy.steps=4"]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("single")
    return {name: train(folder / name, WORK[name], 1) for name in ("mlp", "masked gpt")}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mlp", ["strategy.steps=1"]),
        ("masked gpt", ["strategy.steps=1"]),
        ("mlp", ["strategy.steps=1000", "strategy.warmup_steps=20"]),
    ],
)
def test_averaged_after_every_step_it_is_one_process(
    tmp_path: Path, single: dict[str, Any], name: str, keys: list[str]
) -> None:
    batches, losses, weights = train(tmp_path, [*WORK[name], "strategy=localsgd", *keys], 2)
    expected_batches, expected_losses, expected_weights = single[name]
    assert batches == expected_batches
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert losses[-1] < losses[0], "nothing was learned, so equal losses would prove nothing"
    for key, value in expected_weights.items():
        torch.testing.assert_close(weights[key], value, rtol=1e-3, atol=1e-5)


def test_every_fifth_step_averaged_learns_as_well_with_fewer_bytes(tmp_path: Path) -> None:
    work = ["data=digits", "model=mlp", "train.epochs=4"]
    ddp = train_ranks([*work, "strategy=ddp"], tmp_path / "ddp", 2)
    local = train_ranks([*work, "strategy=localsgd", "strategy.steps=5"], tmp_path / "local", 2)
    assert ddp["metric"]["value"] > 0.9
    assert local["metric"]["value"] == pytest.approx(ddp["metric"]["value"], rel=0.02)
    assert local["communication_bytes"] < ddp["communication_bytes"] / 3


def step(t: Training, batches: Any) -> None:
    train_step(t, next(batches))
    t.step += 1


def weights(t: Training) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in t.bare.parameters()])


def rounds(folder: str) -> dict[str, Any]:
    """What this rank holds in the middle of a round, inside an evaluation, after it, and at the round's end."""
    t = build_here(folder)
    batches = t.loader.batches(0, 5)
    for _ in range(3):
        step(t, batches)
    middle, statistics = weights(t), [b.clone() for b in t.bare.buffers()]
    with t.strategy.evaluating(t.bare):
        inside, inside_statistics = weights(t), [b.clone() for b in t.bare.buffers()]
    back, bytes_before = weights(t), t.strategy.exchange.bytes_sent
    found = evaluate(t, "validation")
    bytes_again = t.strategy.exchange.bytes_sent
    back_statistics = [b.clone() for b in t.bare.buffers()]
    step(t, batches)
    return {
        "middle": middle, "inside": inside, "back": back, "end": weights(t), "found": found,
        "statistics": statistics, "inside statistics": inside_statistics, "back statistics": back_statistics,
        "bytes": (bytes_before, bytes_again),
    }  # fmt: skip


def test_replicas_differ_in_a_round_and_their_mean_is_evaluated(tmp_path: Path) -> None:
    cnn = ["data=digits", "model=cnn", "model.channels=[4,8]", "train.global_batch=32", "train.epochs=null"]
    one, other = run_ranks(rounds, 2, str(write_run([*cnn, *LOCAL, "train.steps=5"], tmp_path, 2)))
    assert not torch.equal(one["middle"], other["middle"])
    assert torch.equal(one["inside"], other["inside"])
    torch.testing.assert_close(one["inside"], (one["middle"] + other["middle"]) / 2)
    for rank in (one, other):
        assert torch.equal(rank["back"], rank["middle"])
        assert all(torch.equal(a, b) for a, b in zip(rank["statistics"], rank["back statistics"], strict=True))
        assert rank["bytes"][0] == rank["bytes"][1], "the same mean was sent twice"
    for a, b, mean in zip(one["statistics"], other["statistics"], one["inside statistics"], strict=True):
        torch.testing.assert_close(mean, (a + b) / 2 if a.is_floating_point() else a)
    assert torch.equal(one["end"], other["end"])
    assert one["found"] == other["found"]


def averaged(folder: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """At the end of a round: this rank's moving average, what is evaluated of it, and what that gives. Saved, too."""
    t = build_here(folder)
    batches = t.loader.batches(0, 4)
    for _ in range(4):
        step(t, batches)
    with t.average.applied():
        own = weights(t)
        with t.strategy.evaluating(t.bare):
            inside = weights(t)
    checkpoints = Checkpoints(t, Path(folder), "a run")
    checkpoints.save({})
    checkpoints.finish()
    return own, inside, evaluate(t, "validation")


@pytest.mark.parametrize("strategy", [LOCAL, ["strategy=diloco", "strategy.steps=4"]], ids=lambda words: words[0])
def test_a_moving_average_is_one_for_all_ranks_where_they_agree(tmp_path: Path, strategy: list[str]) -> None:
    folder = write_run([*MLP, *strategy, "train.ema=0.9", "train.steps=4"], tmp_path, 2)
    (own, inside, found), (other, other_inside, other_found) = run_ranks(averaged, 2, str(folder))
    assert not torch.equal(own, other)
    torch.testing.assert_close(inside, (own + other) / 2)
    assert torch.equal(inside, other_inside)
    assert found == other_found
    saved = load_file(next(folder.glob("checkpoints/step-*/average.safetensors")))
    numbers = torch.cat([x.flatten() for x in saved.values()])
    assert torch.equal(numbers.sort().values, inside.sort().values)


def alone(folder: str) -> int:
    """Rank 1 takes all steps of a round but the last; rank 0 takes none, so that it could answer nothing."""
    t = build_here(folder, PARITY)
    batches = t.loader.batches(0, 4)
    for _ in range(3 * t.world.rank):
        step(t, batches)
    return t.step


def test_no_step_waits_for_another_rank(tmp_path: Path) -> None:
    folder = write_run([*WORK["masked gpt"], *LOCAL, "train.epochs=null", "train.steps=4"], tmp_path, 2, PARITY)
    assert run_ranks(alone, 2, str(folder), seconds=20) == [0, 3]


def poisoned(folder: str) -> tuple[str, bool, list[float]]:
    """Rank 1's weights hold a nan: (the error, whether this rank's weights are finite after it, skipped steps told)"""
    t = build_here(folder)
    batches = t.loader.batches(0, 8)
    rows = torch.zeros(3, 1)
    try:
        for _ in range(8):
            if t.step == 5 and t.world.rank == 1:
                t.parameters[0].data[0, 0] = torch.nan
            report = train_step(t, next(batches))
            if t.step == 6:
                rows = torch.stack([report.loss, report.norm, report.skipped]).view(3, 1)
                t.strategy.reduce_report(rows)
            t.step += 1
    except DivergedError as error:
        return f"{t.step} {error.message}", bool(weights(t).isfinite().all()), rows[2].tolist()
    return "no error", True, []


@pytest.mark.parametrize("strategy", [LOCAL, ["strategy=diloco", "strategy.steps=4"]], ids=lambda words: words[0])
def test_weights_that_are_none_end_the_run_on_all_ranks_together(tmp_path: Path, strategy: list[str]) -> None:
    one, other = run_ranks(poisoned, 2, str(write_run([*MLP, *strategy, "train.steps=8"], tmp_path, 2)))
    assert one[0] == other[0]
    assert one[0].startswith("7 after step 8 a rank's weights held nan")
    assert one[1], "they were taken over"
    assert one[2] == other[2] == [1.0], "one rank's skipped step is told by all"


RESUMED: dict[str, list[str]] = {
    "state": [*SMALL, *STATE, "stopping=early", "stopping.patience=50", "train.clip_norm=0.1"],
    "fp16": [*SMALL, "precision=fp16", "precision.growth_interval=3", "precision.initial_scale=1024"],
    "muon": [*SMALL, "optimizer=muon"],
    "images": ["model=cnn", "model.channels=[4,8]", "optimizer=sgd"],
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_resumed_within_a_round_repeats_bit_for_bit(tmp_path: Path, name: str) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks([*RUN, *RESUMED[name], *LOCAL], straight, 2)
    back_to(5, straight, resumed)
    summary = train_ranks([], resumed, 2, resume=True)
    assert_equal_runs(resumed, straight)
    assert summary["communication_bytes"] == json.loads((straight / "summary.json").read_text())["communication_bytes"]


def scale(folder: str) -> float:
    """A loss scale of this rank's own, saved and read back."""
    t = build_here(folder)
    train_step(t, next(t.loader.batches(0, 1)))
    t.scaler.load({"scale": 2.0**t.world.rank, "quiet": 0})
    checkpoints = Checkpoints(t, Path(folder), "a run")
    checkpoints.save({})
    checkpoints.finish()
    t.world.barrier()
    t.scaler.load({"scale": 64.0, "quiet": 0})
    restore(t, newest(Path(folder))[0])
    return float(t.scaler.factor)


def test_every_rank_has_a_loss_scale_of_its_own(tmp_path: Path) -> None:
    folder = write_run([*MLP, *LOCAL, "precision=fp16", "train.steps=2"], tmp_path, 2)
    assert run_ranks(scale, 2, str(folder)) == [1.0, 2.0]


def restored(folder: str) -> tuple[torch.Tensor, int, list[str]]:
    """Of another run's checkpoint: this rank's weights, the step, what the user is told."""
    t = build_here(folder)
    saved, _ = newest(Path(folder).parent / "written")
    restore(t, saved)
    return weights(t), t.step, checkpoint_replicas.left_behind(t, saved)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two replicas in the middle of a round."""
    folder = tmp_path_factory.mktemp("runs")
    train_ranks([*MLP, *LOCAL, "train.steps=6"], folder / "written", 2)
    return folder


@pytest.mark.parametrize(("reads", "ranks"), [("single", 1), ("ddp", 2), ("localsgd", 2)])
def test_checkpoints_are_read_under_any_strategy(written: Path, reads: str, ranks: int) -> None:
    folder = write_run([*MLP, f"strategy={reads}", "train.steps=6"], written / reads, ranks)
    found = run_ranks(restored, ranks, str(folder))
    saved = load_file(written / "written" / "checkpoints" / "latest" / "model.safetensors")
    mean = torch.stack([own for own, _, _ in found]).mean(0)
    torch.testing.assert_close(mean.sort().values, torch.cat([x.flatten() for x in saved.values()]).sort().values)
    assert all(step == 6 and len(lines) == (reads != "localsgd") for _, step, lines in found)
    assert all(torch.equal(own, found[0][0]) for own, _, _ in found) == (reads != "localsgd")


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    folder = write_run([*MLP, *LOCAL, "train.steps=1000000", "metrics.every=5", "evaluate.every=1000000"], tmp_path, 2)
    ranks = Ranks(train_here, 2, str(folder))
    try:
        ends = time.monotonic() + 30
        while not (folder / "metrics.jsonl").exists() or not records(folder, "train"):
            assert time.monotonic() < ends
            time.sleep(0.02)
        ranks.processes[1].kill()
        ranks.processes[0].join(5)
        assert not ranks.processes[0].is_alive()
    finally:
        ranks.close()
