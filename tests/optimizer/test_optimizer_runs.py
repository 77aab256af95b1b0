"""Every optimizer in the engine: its steps, a resume bit for bit, and a batch that holds a nan."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from optimizer_cases import configured
from ranks import build_here, compose, run_ranks
from torch import Tensor
from torch.utils.data import TensorDataset

from accel_cli.config import run as run_file
from accel_cli.config.parts import table
from accel_cli.config.run import Run
from accel_cli.engine.checkpoint import Checkpoints, restore
from accel_cli.engine.checkpoint_files import newest
from accel_cli.engine.evaluate import evaluate
from accel_cli.engine.state import optimizer_tensors
from accel_cli.engine.step import train_step
from accel_cli.engine.training import Training

STEPS, SAVED = 6, 3
RUN = [
    "data=digits", "model=mlp", "model.widths=[64,64]", "train.global_batch=32", "train.epochs=null",
    f"train.steps={STEPS}", "train.clip_norm=1", "train.clip_value=0.05",
]  # fmt: skip
BY_NAME = [
    {"match": "*.bias", "rate": 0.5, "weight_decay": 0.0},
    {"match": "1.weight", "frozen": True},
]
OPTIONS = [name for name in table("optimizer") if name != "custom"]
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    **{name: {"optimizer": {"option": name, "groups": BY_NAME}} for name in OPTIONS},
    "custom": {"optimizer": {"option": "custom", "factory": "torch.optim:SGD", "args": {"momentum": 0.9}}},
    "ema": {"train": {"ema": 0.9}},
    "lookahead": {"train": {"lookahead": 2}},
    "decay": {"optimizer": {"option": "lamb", "weight_decay": 0.1, "decay_norms_and_biases": True}},
    "loop": {"optimizer": {"option": "sgd", "kernel": "loop"}},
    "foreach": {"optimizer": {"option": "nadam", "kernel": "foreach"}},
}
AVERAGES = ("ema", "lookahead")
"""At a skipped step they see weights that stood still, and go on towards them."""
HERE = ["test_optimizer_runs"]
FEW = ["adamw", "rmsprop", "rprop", "lamb", "schedule_free", "asgd", "muon", "ema", "lookahead"]
"""On two ranks, one of each kind."""


def written(base: Run, changes: dict[str, dict[str, Any]], folder: Path) -> str:
    """A run folder, in a hundredth of the time that composing takes."""
    for group, values in changes.items():
        if "option" in values:
            base = replace(base, optimizer=configured(**values))
        else:
            base = base.with_values(group, **values)
    folder.mkdir()
    run_file.write(base, folder / "run.yaml")
    return str(folder)


def step_to(t: Training, last: int) -> None:
    batches = t.loader.batches(t.step, t.steps)
    while t.step < last:
        train_step(t, next(batches))
        t.step += 1


def everything(t: Training) -> dict[str, Tensor]:
    """Live weights, optimizer state, an average's own tensors, and what evaluation reads."""
    with t.average.applied():
        evaluated = {f"evaluated {n}": v.detach().clone() for n, v in t.bare.state_dict().items()}
    found = {**t.bare.state_dict(), **optimizer_tensors(t.optimizer, t.bare)[0], **t.average.tensors, **evaluated}
    return {name: getattr(value, "_local_tensor", value).detach().clone() for name, value in found.items()}


def differences(folders: dict[str, str]) -> dict[str, list[str]]:
    """Run -> what is different, or none, in a run that was resumed; and what did not move at all."""
    found = {}
    for name, folder in folders.items():
        straight = build_here(folder)
        before = everything(straight)
        step_to(straight, SAVED)
        evaluate(straight, "validation")  # must leave no trace
        live = everything(straight)
        checkpoints = Checkpoints(straight, Path(folder), name)
        checkpoints.save({})
        checkpoints.finish()
        assert all(torch.equal(value, live[key]) for key, value in everything(straight).items())
        straight.world.barrier()
        step_to(straight, STEPS)
        resumed = build_here(folder)
        restore(resumed, newest(Path(folder))[0])
        step_to(resumed, STEPS)
        one, other = everything(straight), everything(resumed)
        wrong = sorted(one.keys() ^ other.keys())
        wrong += [key for key in one.keys() & other.keys() if not torch.equal(one[key], other[key])]
        wrong += [key for key, value in one.items() if value.is_floating_point() and not value.isfinite().all()]
        moved = [key for key, value in before.items() if not torch.equal(value, one[key])]
        found[name] = wrong + (["nothing moved"] if not moved else [])
    return found


@pytest.mark.parametrize(
    ("strategy", "ranks", "runs"),
    [
        ("single", 1, list(RUNS)),
        ("ddp", 2, FEW),
        ("fsdp", 2, FEW),
        ("localsgd", 2, ["lookahead", "lamb"]),
        ("pipeline", 2, ["schedule_free", "lars", "lookahead"]),
    ],
)
def test_a_resume_is_bit_for_bit(tmp_path: Path, strategy: str, ranks: int, runs: list[str]) -> None:
    base = compose([*RUN, f"strategy={strategy}"], ranks)
    folders = {name: written(base, RUNS[name], tmp_path / name) for name in runs}
    for found in run_ranks(differences, ranks, folders):
        assert {name: wrong for name, wrong in found.items() if wrong} == {}


def whole_weights(folders: dict[str, str]) -> dict[str, dict[str, Tensor]]:
    """Run -> its live weights and what it evaluates, whole, on rank 0, after all steps."""
    found = {}
    for name, folder in folders.items():
        t = build_here(folder)
        step_to(t, STEPS)
        found[name] = t.strategy.gather(t.bare.state_dict())
        with t.average.applied():
            found[name] |= {f"evaluated {n}": v for n, v in t.strategy.gather(t.bare.state_dict()).items()}
    return found


def test_every_layout_takes_the_same_steps(tmp_path: Path) -> None:
    """Norms of layers, averages and limits are those of whole tensors, wherever their parts lie."""
    runs = ["sgd", "rprop", "lamb", "lars", "lion", "schedule_free", "asgd", "lookahead"]
    found = []
    for strategy, ranks in (("single", 1), ("ddp", 2), ("fsdp", 2)):
        base = compose([*RUN, f"strategy={strategy}"], ranks)
        folders = {name: written(base, RUNS[name], tmp_path / f"{strategy}-{name}") for name in runs}
        found.append(run_ranks(whole_weights, ranks, folders)[0])
    single, *others = found
    for other in others:
        for name in runs:
            assert single[name].keys() == other[name].keys()
            for key, value in single[name].items():
                # Where a gradient is near 0 its sign, which is all that these two see, is rounding's.
                loose = 2e-3 if name in ("lion", "rprop") else 2e-6
                torch.testing.assert_close(other[name][key], value, rtol=1e-5, atol=loose, msg=f"{name}: {key}")


def with_nan(split: str) -> TensorDataset:
    """64 samples, the first of which holds a nan, in training."""
    inputs = torch.rand(64, 8, generator=torch.Generator().manual_seed(0))
    if split == "train":
        inputs[0] = math.nan
    return TensorDataset(inputs, torch.arange(64) % 4)


def around_the_nan(folders: dict[str, str]) -> dict[str, list[str]]:
    """Run -> what moved, or is not finite, at the one step that was skipped; and whether one was."""
    found = {}
    for name, folder in folders.items():
        t = build_here(folder, HERE)
        batches, skipped, wrong = t.loader.batches(0, 8), 0, []
        for _ in range(8):
            before = everything(t)
            report = train_step(t, next(batches))
            t.step += 1
            after = everything(t)
            skipped += int(report.skipped)
            wrong += [f"{key} at {t.step}" for key, value in after.items() if not value.isfinite().all()]
            if report.skipped and name not in AVERAGES:
                wrong += [key for key, value in before.items() if not torch.equal(value, after[key])]
        found[name] = wrong + ([] if skipped == 1 else [f"{skipped} steps were skipped"])
    return found


@pytest.mark.parametrize(("strategy", "ranks"), [("ddp", 2), ("fsdp", 2)])
def test_a_nan_on_one_rank_moves_nothing_on_any(tmp_path: Path, strategy: str, ranks: int) -> None:
    words = ["data=custom", "data.factory=test_optimizer_runs:with_nan", "data.classes=4", "model=mlp",
             "model.widths=[16,16]", "train.global_batch=8", "train.epochs=null", "train.steps=8"]  # fmt: skip
    base = compose([*words, f"strategy={strategy}"], ranks, HERE)
    runs = {name: RUNS[name] for name in FEW}
    folders = {name: written(base, changes, tmp_path / name) for name, changes in runs.items()}
    for found in run_ranks(around_the_nan, ranks, folders):
        assert {name: wrong for name, wrong in found.items() if wrong} == {}
