"""Distillation: the loss is the paper's, cached outputs are those of a teacher that runs beside, a resume goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from ranks import compose, records, run_ranks, train_here, train_ranks, write_run
from safetensors.torch import load_file, save_file
from test_resume import assert_equal_runs, back_to
from torch import Tensor
from torch.nn import functional

from accel_cli.compression.distill import Lesson, Taught
from accel_cli.compression.features import Channels, distance
from accel_cli.description import DataDescription
from accel_cli.engine import deep_check
from accel_cli.engine.teacher import Teacher
from accel_cli.engine.trained import TrainedModel, trained_model
from accel_cli.errors import ConfigError, SecurityError
from accel_cli.precision.base import Precision
from accel_cli.task.classification import Classification
from accel_cli.task.language_model import LanguageModel
from accel_cli.task.regression import Regression

SHORT = [
    "train.epochs=null", "train.steps=8", "train.global_batch=32", "metrics.every=1", "evaluate.every=4",
    "checkpoint.every=4", "checkpoint.keep_last=9", "optimizer=sgd", "optimizer.learning_rate=0.05",
    "hardware.memory_format=contiguous",
]  # fmt: skip
DIGITS = [*SHORT, "data=digits"]
SMALL = [*DIGITS, "model=mlp", "model.widths=[16,16,16]"]
TEXT = [*SHORT, "data=stdlib_text", "data.length=16", "data.max_bytes=40000", "model=gpt", "model.width=16",
        "model.depth=2", "model.heads=2", "train.global_batch=16"]  # fmt: skip
NUMBERS = [*SHORT, "data=synthetic", "data.samples=200", "data.shape=vector", "data.classes=null", "model=mlp"]
SELDOM = ["evaluate.every=1000", "checkpoint.every=1000"]
TEACHERS = {
    "digits": [*DIGITS, "model=cnn", "train.steps=200", "optimizer=adamw", "optimizer.learning_rate=0.005", *SELDOM],
    "text": [*TEXT, "model.depth=3"],
    "numbers": [*NUMBERS, "model.widths=[32]"],
}
OWN = {*("teacher", "cache", "views", "share", "temperature", "checkpoint"),
       *("weights", "args", "features", "layers", "feature_weight")}  # fmt: skip
STUDENTS = {"digits": SMALL, "text": TEXT, "numbers": NUMBERS}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in TEACHERS}
    for name, words in TEACHERS.items():
        train_ranks(merged(words), found[name])
    return found


def merged(words: list[str]) -> list[str]:
    return list({word.partition("=")[0]: word for word in words}.values())


def taught(student: list[str], teacher: Path, *more: str) -> list[str]:
    key = "compression.passes.distill"
    own = [f"{key}.{word}" if word.partition("=")[0] in OWN else word for word in more]
    return merged([*student, "compression=distill", f"{key}.teacher={teacher}", *own])


def losses(folder: Path) -> Tensor:
    return torch.tensor([record["loss"] for record in records(folder, "train")], dtype=torch.float64)


def lesson(kind: type, share: float, temperature: float, **facts: Any) -> Lesson:
    ignored = facts.pop("ignored_targets", False)
    own = {"label_smoothing": 0.0, "ignored_targets": ignored, "test_time_augmentation": "none"}
    config = SimpleNamespace(option="x", **own)
    description = DataDescription(input="other", target=kind.target, input_shape=(), **facts)  # type: ignore[attr-defined]
    learns = SimpleNamespace(temperature=temperature, share=share, features=None, feature_weight=1.0)
    return Lesson(kind(config, description), learns)


def test_the_loss_is_hintons() -> None:
    torch.manual_seed(0)
    output, other, targets = torch.randn(6, 5), torch.randn(6, 5), torch.arange(6) % 5
    found = lesson(Classification, 0.3, 4.0, classes=5)
    total, weight = found.loss_of(output, (None, Taught(targets, other)))
    soft, log = torch.softmax(other / 4, 1), torch.log_softmax(output / 4, 1)
    divergence = (soft * (soft.log() - log)).sum()
    assert weight == 6
    assert torch.allclose(total, 0.7 * functional.cross_entropy(output, targets, reduction="sum") + 4.8 * divergence)
    assert torch.equal(found.loss_of(output, (None, targets))[0], found._task.loss_of(output, (None, targets))[0])


def test_tokens_that_do_not_count_teach_nothing() -> None:
    torch.manual_seed(0)
    output, other, targets = torch.randn(2, 3, 7), torch.randn(2, 3, 5), torch.tensor([[1, -100, 2], [-100, 0, 4]])
    found = lesson(LanguageModel, 1.0, 1.0, vocabulary=5, ignored_targets=True)
    total, weight = found.loss_of(output, (None, Taught(targets, other)))
    counted = targets != -100
    log, soft = torch.log_softmax(output[..., :5], -1)[counted], torch.log_softmax(other, -1)[counted]
    assert weight == 4
    assert torch.allclose(total, (soft.exp() * (soft - log)).sum())


def test_numbers_are_learnt_by_squares() -> None:
    output, other, targets = torch.randn(4, 2), torch.randn(4, 2), torch.randn(4, 2)
    total, weight = lesson(Regression, 0.25, 9.0, outputs=2).loss_of(output, (None, Taught(targets, other)))
    squares = [((output - wanted) ** 2).mean(1).sum() for wanted in (targets, other)]
    assert torch.allclose(total, 0.75 * squares[0] + 0.25 * squares[1])
    assert weight == 4


def test_a_teacher_reads_inputs_as_it_was_taught_to() -> None:
    ours, theirs = (
        DataDescription(input="image", target="class", input_shape=(2, 1, 1), classes=2, mean=mean, std=std)
        for mean, std in (((1.0, 2.0), (2.0, 0.0)), ((5.0, 1.0), (4.0, 3.0)))
    )
    stored = torch.tensor([[7.0, 3.0], [1.0, 4.0]]).view(2, 2, 1, 1)
    own = (stored - torch.tensor([1.0, 2.0]).view(1, 2, 1, 1)) / torch.tensor([2.0, 1.0]).view(1, 2, 1, 1)
    expected = ((stored.flatten(1) - torch.tensor([5.0, 1.0])) / torch.tensor([4.0, 3.0])).view(2, 2)
    task = Classification(SimpleNamespace(option="x", test_time_augmentation="none"), ours)
    device = torch.device("cpu")
    found = TrainedModel(torch.nn.Flatten(), theirs, "classification")
    teacher = Teacher(found, description=ours, task=task, precision=Precision(None, device), device=device)
    assert torch.allclose(teacher.of_inputs(own), expected)


EQUAL = {
    "digits": ("digits", ["train.micro_batch=8", "augment=basic", "augment.transforms.basic.crop=2", "views=2"]),
    "workers": ("digits", ["loader=workers", "loader.workers=1", "augment=basic", "augment.transforms.basic.crop=2"]),
    "text": ("text", ["temperature=1.0", "share=1.0"]),
    "numbers": ("numbers", []),
}


@pytest.mark.parametrize("case", EQUAL)
def test_cached_outputs_are_those_of_a_teacher_beside(teachers: dict[str, Path], tmp_path: Path, case: str) -> None:
    name, words = EQUAL[case]
    cached = taught(STUDENTS[name], teachers[name], *words)
    train_ranks(cached, tmp_path / "cached", cache=tmp_path)
    online = [word for word in words if not word.startswith("views")]  # one epoch: all of it is view 0
    train_ranks(taught(STUDENTS[name], teachers[name], *online, "cache=false"), tmp_path / "online", cache=tmp_path)
    assert torch.allclose(losses(tmp_path / "cached"), losses(tmp_path / "online"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("strategy", "name"), [("ddp", "digits"), ("pipeline", "digits"), ("context", "text")])
def test_losses_are_those_of_one_process(teachers: dict[str, Path], tmp_path: Path, strategy: str, name: str) -> None:
    one = taught(STUDENTS[name], teachers[name])
    train_ranks(one, tmp_path / "one", cache=tmp_path)
    train_ranks([*one, f"strategy={strategy}"], tmp_path / "many", 2, cache=tmp_path)
    assert torch.allclose(losses(tmp_path / "many"), losses(tmp_path / "one"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["cached", "online", "two"])
def test_a_resume_goes_on_bit_for_bit(teachers: dict[str, Path], tmp_path: Path, case: str) -> None:
    ranks, cache = 2 if case == "two" else 1, f"cache={str(case != 'online').lower()}"
    words = taught(SMALL, teachers["digits"], cache, "augment=basic", "augment.transforms.basic.crop=2")
    train_ranks(words, tmp_path / "straight", ranks, cache=tmp_path)
    back_to(4, tmp_path / "straight", tmp_path / "resumed")
    train_ranks([], tmp_path / "resumed", ranks, resume=True, cache=tmp_path)
    assert_equal_runs(tmp_path / "resumed", tmp_path / "straight", 8)


def test_evaluation_is_of_the_plain_task(teachers: dict[str, Path], tmp_path: Path) -> None:
    """With a rate of nothing the student stays what it was: only the training loss tells of the teacher."""
    still = ["optimizer.learning_rate=1e-30"]
    train_ranks(taught(SMALL, teachers["digits"], "share=1.0", *still), tmp_path / "taught", cache=tmp_path)
    train_ranks(merged([*SMALL, *still]), tmp_path / "plain")
    own, plain = ([r["validation_loss"] for r in records(tmp_path / f, "evaluation") if "validation_loss" in r]
                  for f in ("taught", "plain"))  # fmt: skip
    assert own == pytest.approx(plain)
    assert not torch.allclose(losses(tmp_path / "taught"), losses(tmp_path / "plain"), rtol=1e-2)


OTHER = [*SHORT, "data=synthetic", "data.samples=200", "data.height=8", "data.width=8", "data.channels=1",
         "data.classes=7", "model=mlp"]  # fmt: skip
REFUSED = {
    "nowhere": (SMALL, ["compression.passes.distill.teacher=/nowhere"], "no such folder"),
    "checkpoint": (SMALL, ["checkpoint=best-of-all"], "has no checkpoint best-of-all"),
    "target": (NUMBERS, [], "was trained on data whose input is image"),
    "classes": (OTHER, [], "was trained on data whose classes is 10"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_teacher_of_something_else_is_refused(teachers: dict[str, Path], tmp_path: Path, case: str) -> None:
    student, more, why = REFUSED[case]
    words = merged([*taught(student, teachers["digits"], *more)])
    folder = write_run(words, tmp_path, 1)
    assert run_ranks(train_here, 1, str(folder)) == [2]
    (problem,) = json.loads((folder / "ranks" / "0.failure.json").read_text())["problems"]
    assert why in problem["why"]
    assert problem["where"].startswith("compression.passes.distill.teacher=")
    assert problem["fix"]
    with pytest.raises(ConfigError, match=why):
        deep_check.check(compose(words, 1))


CNN = [*DIGITS, "model=cnn", "model.channels=[4,8]", "model.normalisation=group"]
FEATURES = {
    "hint": ["features=hint", "layers=[stages.0,stages.1]", "share=0.5"],
    "attention": ["features=attention", "layers=[stages.1:stages.1]", "share=0.0"],
}


def test_distances_are_the_papers() -> None:
    torch.manual_seed(0)
    own, other = torch.randn(3, 4, 2, 2), torch.randn(3, 6, 4, 4)
    few = other[:, :, ::2, ::2]
    maps = [functional.normalize(x.square().mean(1).flatten(1)) for x in (own, few)]
    assert torch.allclose(distance("attention", own, few), (maps[0] - maps[1]).square().sum(1).mean() / 2)
    project = Channels(4, 6)
    expected = torch.einsum("nchw,oc->nohw", own, project.weight) + project.bias[:, None, None]
    assert torch.allclose(project(own), expected, atol=1e-6)
    pooled = functional.avg_pool2d(other, 2)
    assert torch.allclose(distance("hint", expected, other), (expected - pooled).square().mean() / 2)


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
@pytest.mark.parametrize("kind", FEATURES)
def test_features_are_learnt_and_a_resume_goes_on(
    teachers: dict[str, Path], tmp_path: Path, kind: str, strategy: str
) -> None:
    ranks = 1 if strategy == "single" else 2
    words = taught(CNN, teachers["digits"], "cache=false", *FEATURES[kind], "train.ema=0.9", f"strategy={strategy}")
    train_ranks(words, tmp_path / "straight", ranks)
    back_to(4, tmp_path / "straight", tmp_path / "resumed")
    train_ranks([], tmp_path / "resumed", ranks, resume=True)
    assert_equal_runs(tmp_path / "resumed", tmp_path / "straight", 8)
    train_ranks([*words, "compression.passes.distill.feature_weight=0"], tmp_path / "without", ranks)
    assert not torch.equal(losses(tmp_path / "straight"), losses(tmp_path / "without"))


def test_projections_are_trained_and_thrown_away(teachers: dict[str, Path], tmp_path: Path) -> None:
    train_ranks(taught(CNN, teachers["digits"], "cache=false", *FEATURES["hint"], "checkpoint.every=1"), tmp_path)
    first, last = (load_file(tmp_path / f"checkpoints/step-0000000{n}/model.safetensors") for n in (1, 8))
    hints = [name for name in first if name.startswith("hints.")]
    assert len(hints) == 4
    assert all(not torch.equal(first[name], last[name]) for name in hints if name.endswith("weight"))
    finished = load_file(tmp_path / "checkpoints/finished/model.safetensors")
    assert finished.keys() == last.keys() - set(hints)
    model = trained_model(tmp_path, "finished").model
    assert all(torch.equal(value, finished[name]) for name, value in model.state_dict().items())


class Big(torch.nn.Sequential):
    """A teacher of the user's own."""

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__(
            torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, classes)
        )


def test_a_teacher_of_ones_own_code(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(Big(10, 6).state_dict(), tmp_path / "big.safetensors")
    words = taught(
        SMALL, tmp_path, "teacher=test_distill:Big", f"weights={tmp_path / 'big.safetensors'}", "args={width: 6}"
    )
    train_ranks(words, tmp_path / "run", plugins=["test_distill"], cache=tmp_path)
    again = [word.replace("{width: 6}", "{width: 5}") for word in words]
    folder = write_run(again, tmp_path / "wrong", 1, plugins=["test_distill"])
    assert run_ranks(train_here, 1, str(folder), False, None, ["test_distill"], tmp_path) == [2]
    (problem,) = json.loads((folder / "ranks" / "0.failure.json").read_text())["problems"]
    assert "4 of 4 tensors do not fit" in problem["why"] or "3 of 4 tensors do not fit" in problem["why"]
    with pytest.raises(SecurityError, match="does not name"):
        compose(words, 1)


def test_a_teacher_of_torchvision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = torchvision.models.get_model("squeezenet1_1", num_classes=10)
    teacher.features[0] = torch.nn.Conv2d(1, 64, 3, 2)
    save_file(teacher.state_dict(), tmp_path / "it.safetensors")
    big = [
        "data=synthetic",
        "data.samples=200",
        "data.height=32",
        "data.width=32",
        "data.channels=1",
        "data.classes=10",
    ]
    words = taught(
        [*SHORT, *big, "model=cnn", "model.channels=[4,8]"],
        tmp_path, "teacher=torchvision:squeezenet1_1", f"weights={tmp_path / 'it.safetensors'}", "cache=false",
        "features=hint", "layers=[stages.1:features.3]", "train.steps=4",
    )  # fmt: skip
    train_ranks(words, tmp_path / "run", cache=tmp_path)
    wrong = [word.replace("squeezenet1_1", "squeezenet9") for word in words]
    with pytest.raises(ConfigError, match="no such classification model") as refused:
        deep_check.check(compose(wrong, 1))
    (problem,) = refused.value.problems
    assert problem.where == "compression.passes.distill.teacher=torchvision:squeezenet9"
    assert "compression.passes.distill.teacher=torchvision:squeezenet1" in problem.fix


WRONG_LAYERS = {
    "nowhere": ("hint", "stages.7", "no module of this name"),
    "kinds": ("hint", "stages.0:head", "features of different kinds"),
    "places": ("attention", "head", "features have none"),
}


@pytest.mark.parametrize("case", WRONG_LAYERS)
def test_layers_that_do_not_fit_are_refused(teachers: dict[str, Path], case: str) -> None:
    kind, layer, why = WRONG_LAYERS[case]
    words = taught(CNN, teachers["digits"], "cache=false", f"features={kind}", f"layers=['{layer}']")
    with pytest.raises(ConfigError, match=why):
        deep_check.check(compose(words, 1))


def test_a_small_student_learns_no_less_than_alone(teachers: dict[str, Path], tmp_path: Path) -> None:
    words = merged([*DIGITS, "model=mlp", "model.widths=[16]", "train.steps=1000", "optimizer=adamw", "train.seed=1",
                    "optimizer.learning_rate=0.01", "metrics.every=100", *SELDOM])  # fmt: skip
    alone = train_ranks(words, tmp_path / "alone")
    found = train_ranks(taught(words, teachers["digits"], "share=0.9"), tmp_path / "taught", cache=tmp_path)
    assert found["metric"]["value"] >= alone["metric"]["value"]
