"""A head on cached features trains as it does on the whole frozen model, which is what is saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranks import compose, records, run_ranks, train_ranks
from safetensors.torch import load_file
from test_resume import assert_equal_runs, back_to
from torch import Tensor, nn

from accel_cli import load
from accel_cli.config import run as run_file
from accel_cli.config.parts import implementation
from accel_cli.engine import checkpoint, checkpoint_files, deep_check, setup
from accel_cli.engine.evaluate import evaluate
from accel_cli.errors import ConfigError
from accel_cli.transfer.frozen_features import FrozenFeatures

SHORT = [
    "data=digits", "train.epochs=null", "train.steps=12", "train.global_batch=128", "metrics.every=1",
    "evaluate.every=4", "checkpoint.every=4", "checkpoint.keep_last=9", "optimizer.learning_rate=0.01",
    "hardware.memory_format=contiguous",
]  # fmt: skip
NETS = {
    "resnet": (["model=resnet", "model.width=8", "model.blocks=[1,1]"], ["stem.*", "blocks.*"]),
    "cnn": (["model=cnn", "model.channels=[8,16]", "model.normalisation=group"], ["stages.*"]),
    "mlp": (["model=mlp", "model.widths=[32,16]"], ["1.*", "3.*"]),
}
CNN = [*SHORT, *NETS["cnn"][0]]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each net, whose weights the others begin with."""
    found = {}
    for name, (words, _) in NETS.items():
        found[name] = tmp_path_factory.mktemp(name)
        train_ranks([*SHORT, *words, "train.steps=20"], found[name])
    return found


def on_features(before: Path, *words: str) -> list[str]:
    return [*CNN, "transfer=frozen_features", f"transfer.weights={before}", *words]


def losses(folder: Path) -> Tensor:
    return torch.tensor([record["loss"] for record in records(folder, "train")])


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / "latest" / "model.safetensors")


@pytest.mark.parametrize("name", NETS)
def test_losses_are_those_of_the_whole_frozen_model(before: dict[str, Path], tmp_path: Path, name: str) -> None:
    words, frozen = NETS[name]
    common = [*SHORT, *words, f"transfer.weights={before[name]}"]
    whole = train_ranks([*common, "transfer=finetune", f"transfer.freeze=[{','.join(frozen)}]"], tmp_path / "whole")
    head = train_ranks([*common, "transfer=frozen_features"], tmp_path / "head", cache=tmp_path)
    assert torch.allclose(losses(tmp_path / "head"), losses(tmp_path / "whole"), rtol=1e-5, atol=0)
    assert head["metric"]["value"] == whole["metric"]["value"]
    assert head["parameters_trained"] == whole["parameters_trained"] < head["parameters"] == whole["parameters"]
    ours, theirs, first = weights(tmp_path / "head"), weights(tmp_path / "whole"), weights(before[name])
    assert ours.keys() == theirs.keys() == first.keys()
    moved = {key for key in ours if not torch.equal(ours[key], first[key])}
    assert moved
    assert len({key.rpartition(".")[0] for key in moved}) == 1, "only the head"
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in ours)


def evaluated(folder: str) -> dict[str, float]:
    run = run_file.read(Path(folder) / "run.yaml")
    training, _ = setup.build(run, *setup.enter(run), print, learns=False)
    checkpoint.restore(training, checkpoint_files.newest(Path(folder))[0])
    return evaluate(training, "test")


def test_the_whole_model_is_what_is_loaded_evaluated_and_begun_with(before: dict[str, Path], tmp_path: Path) -> None:
    summary = train_ranks(on_features(before["cnn"]), tmp_path / "run", cache=tmp_path)
    data = implementation("data", compose(CNN, 1).data)(compose(CNN, 1).data, 0)
    images, targets = data.split("test").batch(torch.arange(len(data.split("test"))))
    right = load(tmp_path / "run")(images).argmax(1) == targets
    assert float(right.float().mean()) == pytest.approx(summary["metric"]["value"])
    (found,) = run_ranks(evaluated, 1, str(tmp_path / "run"))
    assert found["test_accuracy"] == pytest.approx(summary["metric"]["value"])
    again = train_ranks([*CNN, "transfer=finetune", f"transfer.weights={tmp_path / 'run'}", "train.steps=1"],
                        tmp_path / "again")  # fmt: skip
    assert again["steps"] == 1


MORE = {
    "plain": [],
    "views": ["augment=basic", "augment.transforms.basic.crop=2", "transfer.views=2", "train.steps=24"],
    "half": ["precision=bf16_pure", "loader=workers", "loader.workers=1"],
    "compiled": ["compile=full", "compile.backend=aot_eager", "train.ema=0.9", "train.micro_batch=16"],
    "blocks": ["train.activation_checkpointing=blocks", "optimizer=lamb"],
}


@pytest.mark.parametrize("case", MORE)
def test_a_resume_goes_on_bit_for_bit(before: dict[str, Path], tmp_path: Path, case: str) -> None:
    words = on_features(before["cnn"], *MORE[case])
    words = list({word.partition("=")[0]: word for word in words}.values())
    steps = train_ranks(words, tmp_path / "straight", cache=tmp_path)["steps"]
    back_to(8, tmp_path / "straight", tmp_path / "resumed")
    train_ranks([], tmp_path / "resumed", resume=True, cache=tmp_path)
    assert_equal_runs(tmp_path / "resumed", tmp_path / "straight", steps)


@pytest.mark.parametrize("strategy", ["ddp", "localsgd"])
def test_two_ranks_are_as_one_and_resume(before: dict[str, Path], tmp_path: Path, strategy: str) -> None:
    every_step = ["strategy.steps=1", "optimizer=sgd", "optimizer.momentum=0"] if strategy == "localsgd" else []
    words = on_features(before["cnn"], *every_step)
    train_ranks([w for w in words if "strategy" not in w], tmp_path / "one", cache=tmp_path)
    train_ranks([*words, f"strategy={strategy}"], tmp_path / "two", 2, cache=tmp_path)
    assert torch.allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-5, atol=0)
    back_to(8, tmp_path / "two", tmp_path / "resumed")
    train_ranks([], tmp_path / "resumed", 2, resume=True, cache=tmp_path)
    assert_equal_runs(tmp_path / "resumed", tmp_path / "two", 12)


def test_other_frozen_weights_at_a_resume_are_refused(before: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(before["cnn"], tmp_path / "source", symlinks=True)
    train_ranks(on_features(tmp_path / "source"), tmp_path / "run", cache=tmp_path)
    back_to(8, tmp_path / "run", tmp_path / "resumed")
    latest = tmp_path / "source" / "checkpoints" / "latest"
    latest.unlink()
    latest.symlink_to(sorted(path.name for path in latest.parent.glob("step-*"))[0])
    (tmp_path / "resumed" / "summary.json").write_text("{}")
    train_ranks([], tmp_path / "resumed", resume=True, expect=4, cache=tmp_path)
    told = json.loads((tmp_path / "resumed" / "ranks" / "0.failure.json").read_text())
    assert "transfer.weights" in told["message"]


class Task:
    def forward(self, model: nn.Module, batch: Any) -> Any:
        return model(batch[0])


class Net(nn.Module):
    def __init__(self, ends: str) -> None:
        super().__init__()
        self.ends = ends
        self.body = nn.Linear(4, 6)
        self.head = nn.Linear(6, 6)
        if ends == "tied":
            self.body = nn.Linear(6, 6)
            self.head.weight = self.body.weight

    def forward(self, x: Tensor) -> Any:
        x = self.body(x.repeat(1, 2)[:, :6] if self.ends == "tied" else x)
        if self.ends == "twice":
            x = self.head(x)
        if self.ends == "flat":
            return self.head(x.view(-1, 6).repeat(3, 1))
        x = self.head(x)
        return {"after": x.sin(), "dict": {"logits": x}, "functional": x @ self.head.weight}.get(self.ends, x)


BATCH = (torch.linspace(-1, 1, 8).view(2, 4), torch.zeros(2))


@pytest.mark.parametrize("ends", ["plain", "dict"])
def test_the_head_is_found_and_the_rest_frozen(ends: str) -> None:
    model = Net(ends)
    config = SimpleNamespace(weights=None, head="auto", views=1)
    head = FrozenFeatures(config).head(model, Task(), BATCH, 2)  # type: ignore[arg-type]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert torch.equal(head.features(model, Task(), BATCH), model.body(BATCH[0]))


@pytest.mark.parametrize(
    ("ends", "head", "why"),
    [
        ("functional", "auto", "not the output of one of its modules"),
        ("after", "auto", "not the output of one of its modules"),
        ("after", "head", "something comes after it"),
        ("plain", "body", "something comes after it"),
        ("twice", "auto", "2 times"),
        ("flat", "auto", "not a row for each"),
        ("tied", "auto", "shares head.weight"),
        ("plain", "heed", "names no module"),
    ],
)
def test_what_is_no_head_is_refused_with_what_to_type(ends: str, head: str, why: str) -> None:
    model = Net(ends)
    config = SimpleNamespace(weights=None, head=head, views=1)
    with pytest.raises(ConfigError) as raised:
        FrozenFeatures(config).head(model, Task(), BATCH, 2)  # type: ignore[arg-type]
    (problem,) = raised.value.problems
    assert why in problem.why
    assert problem.where == f"transfer.head={head}"
    assert "transfer" in problem.fix


def test_check_deep_refuses_it_too(before: dict[str, Path]) -> None:
    deep_check.check(compose(on_features(before["cnn"]), 1))
    with pytest.raises(ConfigError, match=r"transfer\.head=hat"):
        deep_check.check(compose(on_features(before["cnn"], "transfer.head=hat"), 1))
