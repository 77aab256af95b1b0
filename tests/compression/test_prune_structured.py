"""Structured pruning: shapes shrink during training, everything beside them follows, and a resume goes on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import compose, records, train_ranks
from safetensors.torch import load_file
from test_resume import assert_equal_runs, back_to

from accel_cli import load
from accel_cli.compression.operations import multiply_adds
from accel_cli.compression.prune_structured import PruneStructured
from accel_cli.config.parts import implementation
from accel_cli.description import DataDescription
from accel_cli.engine import following
from accel_cli.engine.borders import Start
from accel_cli.errors import ConfigError
from accel_cli.structure import Border, Change
from accel_cli.world import World

PASS = ["compression=prune_structured", "compression.passes.prune_structured.multiple=8"]
SHORT = [
    "data=digits", "train.epochs=null", "train.steps=10", "train.global_batch=32", "metrics.every=1",
    "evaluate.every=5", "checkpoint.every=1", "checkpoint.keep_last=100", *PASS,
]  # fmt: skip
CNN = ["model=cnn", "model.channels=[32,32]"]
NETS = {
    "cnn": CNN,
    "resnet": ["model=resnet", "model.width=32", "model.blocks=[1,1]"],
    "mlp": ["model=mlp", "model.widths=[64,64]"],
    "vit": ["model=vit", "model.width=64", "model.depth=2", "model.heads=4", "model.patch=2"],
}


def key(name: str, value: Any) -> str:
    return f"compression.passes.prune_structured.{name}={value}"


def plain(words: list[str]) -> tuple[Any, Border, PruneStructured]:
    """A model as configured, a border of it, and the pass."""
    run = compose([*SHORT, *words], 1)
    data = implementation("data", run.data)(run.data, 0)
    description = data.describe()
    torch.manual_seed(0)
    model = implementation("model", run.model)(run.model, description).eval()
    task = implementation("task", run.with_option("task", "classification").task)(
        run.with_option("task", "classification").task, description
    )
    images, classes = torch.randn(2, *description.input_shape), torch.tensor([1, 2])
    border = Border(3, 10, task, (images, classes), lambda samples: iter([(images, classes)]))
    return model, border, PruneStructured(run.compression["prune_structured"])


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
@pytest.mark.parametrize("net", NETS)
def test_half_the_multiply_adds_go_in_blocks(net: str, importance: str) -> None:
    model, border, prune = plain([*NETS[net], key("importance", importance)])
    whole, parameters = multiply_adds(model, border.task, border.example), sum(p.numel() for p in model.parameters())
    shapes = {name: value.shape for name, value in model.named_parameters()}
    old = {name: value.detach().clone() for name, value in model.named_parameters()}
    made = prune.change(model, border)
    left = multiply_adds(made.model, border.task, border.example)
    assert left <= 0.5 * whole
    assert sum(p.numel() for p in made.model.parameters()) < parameters
    for name, value in made.model.named_parameters():
        assert torch.equal(old[name].flatten()[made.kept[name]], value), name  # type: ignore[index]
        for before, after in zip(shapes[name], value.shape, strict=True):
            assert after == before or after % 8 == 0
    fresh = plain(NETS[net])[0]
    again = prune.replay(fresh, json.loads(json.dumps(made.record)))
    assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in model.state_dict().items()}
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        inputs = border.example[0]
        assert torch.equal(again(inputs), model(inputs))


def test_heads_go_as_a_whole() -> None:
    model, border, prune = plain(
        [*NETS["vit"], key("least", 0), key("keep", "['patch_embedding','*contract','*project']")]
    )
    made = prune.change(model, border)
    assert made.model.blocks[0].expand.in_features == 64  # the stream keeps its width
    widths = {block.attention.query.out_features for block in made.model.blocks}
    assert all(width % 16 == 0 for width in widths)
    for block in made.model.blocks:
        attention = block.attention
        assert attention.query.out_features == attention.key.out_features == attention.value.out_features
        assert attention.project.in_features == attention.query.out_features


def test_what_is_least_important_goes() -> None:
    model, border, prune = plain([*NETS["mlp"], key("multiply_adds", 0.95)])
    first, second = (m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 64)
    with torch.no_grad():
        for channel in range(8, 16):
            second.weight[channel] *= 1e-3
    expected = torch.cat([second.weight[:8], second.weight[16:]]).detach().clone()
    prune.change(model, border)
    assert torch.equal(second.weight, expected)


@pytest.mark.parametrize(
    ("words", "world_size"),
    [
        (CNN, 1),
        ([*CNN, "strategy=ddp"], 2),
        ([*CNN, "model.normalisation=group", "strategy=fsdp"], 2),
        ([*CNN, "train.ema=0.9", "optimizer=sgd", "optimizer.momentum=0.9"], 1),
        ([*CNN, key("times", 2), key("end", 0.6)], 1),
    ],
)
def test_killed_at_any_step_it_ends_the_same(tmp_path: Path, words: list[str], world_size: int) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    summary = train_ranks([*SHORT, *words], straight, world_size)
    rows = summary["compression"]
    assert rows[-1]["after"]["multiply_adds"] <= 0.5 * rows[0]["before"]["multiply_adds"]
    assert summary["parameters"] == rows[-1]["after"]["parameters"]
    assert summary["model_bytes"] == rows[-1]["after"]["bytes"]
    for step in (2, 3, 7):
        shutil.rmtree(killed, ignore_errors=True)
        back_to(step, straight, killed)
        again = train_ranks([], killed, world_size, resume=True)
        assert_equal_runs(killed, straight)
        assert len(again["compression"]) == len(rows)


def test_the_state_of_the_optimizer_follows(tmp_path: Path) -> None:
    train_ranks([*SHORT, *CNN], tmp_path)
    before = load_file(tmp_path / "checkpoints" / "step-00000003" / "optimizer.safetensors")
    after = load_file(tmp_path / "checkpoints" / "step-00000004" / "optimizer.safetensors")
    weights = load_file(tmp_path / "checkpoints" / "step-00000004" / "model.safetensors")
    assert before.keys() == after.keys()
    smaller = [name for name in after if before[name].shape != after[name].shape]
    assert smaller
    for name, value in after.items():
        assert value.dim() == 0 or value.shape == weights[name.rpartition("/")[0]].shape
    assert all(float(value) == 4 for name, value in after.items() if name.endswith("/step"))  # they went on


def test_two_ranks_prune_alike_and_learn_as_one(tmp_path: Path) -> None:
    words = [*SHORT, *CNN, "model.normalisation=group", "optimizer=sgd", "optimizer.learning_rate=0.05"]
    train_ranks(words, tmp_path / "one")
    train_ranks(words, tmp_path / "two", 2)
    losses = [torch.tensor([r["loss"] for r in records(tmp_path / name, "train")]) for name in ("one", "two")]
    assert torch.allclose(*losses, rtol=1e-4)


def test_a_pruned_run_is_read_by_others(tmp_path: Path) -> None:
    first = tmp_path / "first"
    summary = train_ranks([*SHORT, *CNN], first)
    model = load(first)
    assert sum(p.numel() for p in model.parameters()) == summary["parameters"]
    words = [w for w in SHORT if "prune_structured" not in w]
    taught = [*words, *CNN, "compression=distill", f"compression.passes.distill.teacher={first}"]
    assert train_ranks([*taught, "train.steps=2"], tmp_path / "second", cache=tmp_path)["status"] == "completed"


def test_a_pass_that_breaks_the_floor_is_rolled_back(tmp_path: Path) -> None:
    words = [*SHORT, *CNN, "train.steps=40", "evaluate.every=10", "optimizer.learning_rate=0.003"]
    broken = [*words, "compression.floor=0", key("start", 0.95), key("multiply_adds", 0.1), key("least", 0)]
    summary = train_ranks(broken, tmp_path / "broken")
    (row,) = summary["compression"]
    assert row["status"] == "rolled back"
    assert row["recovered"] < row["before"]["metric"]
    dense = [w for w in words if "prune_structured" not in w]
    train_ranks(dense, tmp_path / "dense")
    assert_equal_runs(tmp_path / "broken", tmp_path / "dense", 40)
    kept = train_ranks([*words, "compression.floor=0.9"], tmp_path / "kept")
    assert kept["compression"][0]["status"] == "made"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*CNN, key("multiple", 64)], "prune_structured.multiple=1"),
        ([*CNN, key("multiply_adds", 0.01)], "prune_structured.multiply_adds="),
        (
            [*CNN, key("multiply_adds", 0.01)],
            "prune_structured.multiple=4 compression.passes.prune_structured.least=0.125",
        ),
        ([*CNN, key("multiply_adds", 0.01), key("least", 0)], "prune_structured.multiple=4"),
        ([*CNN, key("keep", "['stagse.*']")], "prune_structured.keep=["),
    ],
)
def test_what_cannot_be_pruned_is_told(words: list[str], told: str) -> None:
    model, border, prune = plain(words)
    with pytest.raises(ConfigError) as caught:
        prune.change(model, border)
    assert told in str(caught.value.problems[0])


class Shared(torch.nn.Module):
    """A weight that two layers share, and a branch that torch cannot follow back."""

    def __init__(self, description: DataDescription) -> None:
        super().__init__()
        size = math.prod(description.input_shape)
        self.first = torch.nn.Linear(size, 32)
        self.second = torch.nn.Linear(32, 32)
        self.third = torch.nn.Linear(32, 32)
        self.third.weight = self.second.weight
        self.wide = torch.nn.Linear(32, 64)
        self.head = torch.nn.Linear(64, description.classes or 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.first(images.flatten(1)).relu()
        return self.head(self.wide(self.third(self.second(x).relu()).relu()).relu())


def test_shared_weights_stay_shared() -> None:
    _, border, prune = plain([*CNN, key("multiply_adds", 0.8), key("least", 0)])
    model = Shared(DataDescription(input="image", target="class", input_shape=(1, 8, 8), classes=10)).eval()
    prune.change(model, border)
    assert model.third.weight is model.second.weight
    assert model.second.weight.shape == (32, 32)
    assert model.wide.out_features < 64


def test_a_pass_that_was_rolled_back_stays_so_when_another_is(tmp_path: Path) -> None:
    """Both from the first step: else each would be made again when the other is taken back, for ever."""
    (tmp_path / "checkpoints").mkdir()
    first = Change("low_rank", 0, None)
    training: Any = SimpleNamespace(
        world=World(0, 1, 0, 1, torch.device("cpu")),
        start=Start(None, (first, Change("prune_structured", 0, {}))),
    )
    start = following._back(training, tmp_path, "prune_structured", 0)
    assert start.changes == (first, Change("prune_structured", 0, None))
