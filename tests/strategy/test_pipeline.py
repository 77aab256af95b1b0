"""Pipelines on real ranks: under every schedule the training of one process, its evaluation, checkpoints and end."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks, build_here, compose, records, run_ranks, train_here, train_ranks, write_run
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn import functional

from accel_cli.config import run as run_file
from accel_cli.errors import ConfigError

HERE = ["test_pipeline"]
STEPS = 20
# evaluate.batch leaves a last batch that is smaller.
PLAIN = [
    "precision=fp32", "optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0", "schedule=constant",
    "optimizer.learning_rate=0.1", "train.epochs=null", f"train.steps={STEPS}", "train.global_batch=32",
    "metrics.every=1", "evaluate.every=10", "evaluate.batch=100", "checkpoint.every=10",
]  # fmt: skip
GPT = [
    "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16", "model.heads=2",
    "model.depth=4",
]  # fmt: skip
# Sums over an image's pixels come in another order for other batches: the one process takes micro-batches as well.
RESNET = ["data=digits", "model=resnet", "model.width=8", "model.blocks=[1,1]", "model.normalisation=group",
          "train.micro_batch=16"]  # fmt: skip
WORK = {
    "mlp": ["data=digits", "model=mlp", "model.widths=[32,32,32]"],
    "gpt": GPT,
    "resnet": RESNET,
    "own": ["data=digits", "model=custom", "model.factory=test_pipeline:Own"],
    "asking": [
        "data=stdlib_text",
        "data.length=16",
        "data.max_bytes=40000",
        "model=custom",
        "model.factory=test_pipeline:Asking",
    ],
    "own loss": ["data=digits", "model=mlp", "task=custom", "task.factory=test_pipeline:OwnLoss"],
}


class Own(nn.Module):
    """Two streams between the layers: where it is cut, both tensors pass."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(64, 48), nn.Linear(64, 16)
        self.more = nn.Linear(48, 64)
        self.last = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        count = images.size(0)
        flat = images.reshape(count, -1)
        left, right = functional.relu(self.left(flat)), self.right(flat)
        assert right.shape[1] == 16
        return self.last(right + self.more(left).view(count, 4, 16).transpose(1, 2).mean(2))


class Asking(nn.Module):
    """Asks a weight for its device and another for its type, before it calls the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.head = nn.Embedding(256, 16), nn.Embedding(16, 16), nn.Linear(16, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        asked = self.head.weight.dtype
        places = torch.arange(tokens.shape[1], device=self.places.weight.device)
        return self.head((self.words(tokens) + self.places(places)).to(asked))


class OwnLoss:
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, targets = batch
        return functional.cross_entropy(model(images), targets, label_smoothing=0.1)

    def metrics(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        images, targets = batch
        return {"hits": (model(images).argmax(1) == targets).float().mean()}


def saved(folder: Path, what: str = "model") -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / "latest" / f"{what}.safetensors")


def told(folder: Path) -> tuple[list[float], list[float], list[dict[str, float]]]:
    """(losses, gradient norms, metrics of every evaluation) of a run."""
    train = records(folder, "train")
    known = ("kind", "step", "epoch", "samples", "seconds")
    evaluations = [{k: v for k, v in r.items() if k not in known} for r in records(folder, "evaluation")]
    return [r["loss"] for r in train], [r["gradient_norm"] for r in train], evaluations


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("single")
    for name, work in WORK.items():
        train_ranks(PLAIN + work, folder / name, 1, plugins=HERE)
    return {name: folder / name for name in WORK}


def assert_same(folder: Path, expected: Path) -> None:
    losses, norms, evaluations = told(folder)
    expected_losses, expected_norms, expected_evaluations = told(expected)
    assert losses == pytest.approx(expected_losses, rel=1e-5)
    assert losses[-1] < losses[0], "nothing was learned, so equal losses would prove nothing"
    assert norms == pytest.approx(expected_norms, rel=1e-4)
    assert len(evaluations) == len(expected_evaluations) > 1
    for own, other in zip(evaluations, expected_evaluations, strict=True):
        assert own == pytest.approx(other, rel=1e-4)
    weights, expected_weights = (
        load_file(f / "checkpoints" / "latest" / "model.safetensors") for f in (folder, expected)
    )
    assert weights.keys() == expected_weights.keys()
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5)


PIPELINE, MESH = ["strategy=pipeline"], ["strategy=mesh", "strategy.pipeline=2"]
SHARDS, REPLICAS = ["strategy.shard=2"], ["strategy.shard=1", "strategy.replicate=2"]
INTERLEAVED = "strategy.schedule=interleaved"
CASES: dict[str, tuple[str, int, list[str]]] = {
    "resnet": ("resnet", 2, PIPELINE),
    "own": ("own", 2, PIPELINE),
    "asking": ("asking", 2, PIPELINE),
    "own loss": ("own loss", 2, PIPELINE),
    "gpipe": ("gpt", 2, [*PIPELINE, "strategy.schedule=gpipe"]),
    "1f1b": ("gpt", 2, [*PIPELINE, "strategy.micro_batches=8"]),
    "interleaved": ("gpt", 2, [*PIPELINE, INTERLEAVED]),
    "zero_bubble": ("gpt", 2, [*PIPELINE, "strategy.schedule=zero_bubble", "train.micro_batch=8"]),
    "measured, four ranks": ("mlp", 4, [*PIPELINE, "strategy.balance=measured"]),
    "named, recomputed": ("gpt", 2, [*PIPELINE, "strategy.cut=[blocks.1]", "train.activation_checkpointing=blocks"]),
    "compiled": ("mlp", 2, [*PIPELINE, INTERLEAVED, "compile=full", "compile.backend=aot_eager"]),
    "interleaved replicas": ("gpt", 4, [*MESH, *REPLICAS, INTERLEAVED]),
    "interleaved shards": ("gpt", 4, [*MESH, *SHARDS, INTERLEAVED]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_pipeline_trains_as_one_process(tmp_path: Path, single: dict[str, Path], case: str) -> None:
    work, ranks, strategy = CASES[case]
    train_ranks([*PLAIN, *WORK[work], *strategy], tmp_path, ranks, plugins=HERE)
    assert_same(tmp_path, single[work])


def gathered(folder: str) -> list[list[str]]:
    """Parameters that are whole on this rank: in an evaluation, and after it."""
    t = build_here(folder, HERE)
    (batch,) = next(t.loader.batches(0, 1))[:1]

    def whole() -> list[str]:
        named = [pair for stage in t.strategy.pipeline.stages for pair in stage.named_parameters()]
        return [name for name, p in named if not isinstance(p, DTensor)]

    with t.strategy.evaluating(t.bare):
        t.strategy.evaluate(t.task, t.bare, batch)
        inside = whole()
    return [inside, whole()]


def test_an_evaluation_leaves_no_gathered_weights(tmp_path: Path) -> None:
    """Of several stages in a rank, too: they would go stale."""
    settings = [*PLAIN, *GPT, *MESH, *SHARDS, INTERLEAVED, "strategy.reshard_after_forward=false"]
    write_run(settings, tmp_path, 4)
    for inside, after in run_ranks(gathered, 4, str(tmp_path)):
        assert inside
        assert after == []


def layout(folder: str) -> tuple[list[str], list[str], int]:
    """What this rank holds, and the parts of its batch."""
    training = build_here(folder, HERE)
    training.strategy.forward_backward(training, next(training.loader.batches(0, 1)))
    trained = [name for name, p in training.bare.named_parameters() if p.grad is not None]
    return [name for name, _ in training.bare.named_parameters()], trained, training.work.micro_batches


def test_ranks_hold_their_stages_and_nothing_else(tmp_path: Path, single: dict[str, Path]) -> None:
    write_run([*PLAIN, *GPT, *PIPELINE, INTERLEAVED, "train.micro_batch=6"], tmp_path, 2, HERE)
    (first, trained, parts), (second, _, _) = run_ranks(layout, 2, str(tmp_path))
    whole = saved(single["gpt"])
    assert sorted([*first, *second]) == sorted(whole)
    assert trained == first
    assert {name for name in first if "embedding" in name}
    assert {name for name in second if "head" in name}
    assert parts == 8, "the least multiple of 2 that divides 32 into parts of at most 6"


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [(2, PIPELINE), (2, [*PIPELINE, INTERLEAVED]), (4, [*MESH, *REPLICAS])],
    ids=["1f1b", "interleaved", "replicas"],
)
def test_ten_steps_are_five_and_five(tmp_path: Path, ranks: int, settings: list[str]) -> None:
    """To the bit, dropout and average included."""
    run = [*GPT, *settings, "model.dropout=0.1", "train.ema=0.9", "train.global_batch=16", "train.epochs=null",
           "train.steps=10", "metrics.every=1", "evaluate.every=5", "checkpoint.every=5"]  # fmt: skip
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    train_ranks(run, straight, ranks)
    shutil.copytree(straight, resumed, symlinks=True)
    (resumed / "summary.json").unlink()
    shutil.rmtree(resumed / "checkpoints" / "step-00000010")
    train_ranks([], resumed, ranks, resume=True)
    assert told(resumed) == told(straight)
    for file in ("model", "optimizer", "average"):
        own, other = saved(resumed, file), saved(straight, file)
        assert own.keys() == other.keys()
        assert all(torch.equal(own[name], value) for name, value in other.items())


def test_a_run_goes_on_under_another_strategy(tmp_path: Path, single: dict[str, Path]) -> None:
    """One process, then a pipeline, then one process: the losses of one process all along."""
    orders: list[tuple[int, list[str]]] = [(1, ["strategy=single"]), (2, PIPELINE), (1, ["strategy=single"])]
    for (ranks, strategy), steps in zip(orders, (5, 10, STEPS), strict=True):
        settings = [*PLAIN, *GPT, *strategy, f"train.steps={steps}", "checkpoint.every=5", "evaluate.every=10"]
        if steps == 5:
            train_ranks(settings, tmp_path, ranks)
        else:
            run_file.write(compose(settings, ranks), tmp_path / "run.yaml")
            (tmp_path / "summary.json").unlink()
            train_ranks([], tmp_path, ranks, resume=True)
    assert told(tmp_path)[0] == pytest.approx(told(single["gpt"])[0], rel=1e-5)


def test_a_dead_neighbour_ends_the_others(tmp_path: Path) -> None:
    settings = [*PLAIN, *GPT, *PIPELINE, "train.steps=100000", "launch.wait=5", "checkpoint.every=50000"]
    write_run([*settings, "evaluate.every=50000"], tmp_path, 2)
    ranks = Ranks(train_here, 2, str(tmp_path))
    try:
        ends = time.monotonic() + 30
        while not (tmp_path / "metrics.jsonl").exists() or not records(tmp_path, "train"):
            assert time.monotonic() < ends, "no step was taken"
            time.sleep(0.05)
        ranks.processes[1].kill()
        ranks.processes[0].join(8)
        assert not ranks.processes[0].is_alive(), "rank 0 waits for a rank that is no more"
    finally:
        ranks.close()


class Steered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return self.layer(flat) if flat.sum() > 0 else self.layer(-flat)


REFUSED = {
    "no line": (["data=digits", "model=custom", "model.factory=test_pipeline:Steered"], "strategy=fsdp"),
    "too few layers": (["data=digits", "model=mlp", "model.widths=[32,32]", INTERLEAVED], "strategy.schedule=1f1b"),
    "too small": (["data=digits", "model=mlp", "model.widths=[]"], "strategy=ddp"),
    "no such module": ([*GPT, "strategy.cut=[blocks.9]"], "blocks.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_cut_is_refused_on_all_ranks(tmp_path: Path, case: str) -> None:
    work, fix = REFUSED[case]
    write_run([*PLAIN, *PIPELINE, *work], tmp_path, 2, HERE)
    run_ranks(train_here, 2, str(tmp_path), False, 2, HERE)
    error = json.loads((tmp_path / "summary.json").read_text())["error"]
    assert fix in f"{error['message']} {error['try']}"


def test_a_batch_that_does_not_fill_the_stages_is_refused_at_the_door() -> None:
    with pytest.raises(ConfigError, match=r"train\.global_batch=32 or train\.global_batch=34"):
        compose([*PLAIN, *GPT, *PIPELINE, "train.global_batch=33"], 2)
    with pytest.raises(ConfigError, match=r"strategy\.micro_batches=auto"):
        compose([*PLAIN, *GPT, *PIPELINE, "strategy.micro_batches=3"], 2)
