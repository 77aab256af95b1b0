"""Tasks: sums are sums, gradients those of the mean, and what cannot fit is refused with what to type."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional

from accel_cli.config.parts import implementation, table
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError
from accel_cli.task.base import resolve

CONFIGS = Path(__file__).parents[2] / "configs/task"
CLASSES = DataDescription(input="vector", target="class", input_shape=(6,), classes=7)
NUMBERS = DataDescription(input="vector", target="number", input_shape=(6,), outputs=1)
THREE = DataDescription(input="vector", target="number", input_shape=(6,), outputs=3)
TOKENS = DataDescription(input="tokens", target="next_token", input_shape=(5,), vocabulary=11, bytes_per_token=2.5)
OTHER = DataDescription(input="other", target="other", input_shape=())


def task(option, description, **overrides):
    values = yaml.safe_load((CONFIGS / f"{option}.yaml").read_text())
    config = table("task")[option].schema.model_validate({"option": option, **values, **overrides})
    return implementation("task", config)(config, description)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, inputs):
        return self.head(self.embed(inputs))


def tokens_batch(count=8, ignored=False):
    inputs, targets = torch.randint(11, (count, 5)), torch.randint(11, (count, 5))
    if ignored:
        targets[torch.rand(count, 5) < 0.4] = -100
    return inputs, targets


def cases():
    torch.manual_seed(0)
    inputs = torch.randn(8, 6)
    return {
        "classification": (task("classification", CLASSES), nn.Linear(6, 7), (inputs, torch.arange(8) % 7)),
        "smoothed": (
            task("classification", CLASSES, label_smoothing=0.2),
            nn.Linear(6, 7),
            (inputs, torch.arange(8) % 7),
        ),
        "regression": (task("regression", NUMBERS), nn.Linear(6, 1), (inputs, torch.randn(8, 1))),
        "three": (task("regression", THREE), nn.Linear(6, 3), (inputs, torch.randn(8, 3))),
        "language_model": (task("language_model", TOKENS), Tokens(), tokens_batch()),
        "ignored": (
            task("language_model", TOKENS, ignored_targets=True),
            Tokens(),
            tokens_batch(ignored=True),
        ),
    }


MEANS = {
    "classification": functional.cross_entropy,
    "smoothed": lambda output, targets: functional.cross_entropy(output, targets, label_smoothing=0.2),
    "regression": functional.mse_loss,
    "three": functional.mse_loss,
    "language_model": lambda output, targets: functional.cross_entropy(output.transpose(1, 2), targets),
    "ignored": lambda output, targets: functional.cross_entropy(output.transpose(1, 2), targets),
}


@pytest.mark.parametrize("case", MEANS)
def test_loss_and_gradient_are_those_of_the_mean(case):
    made, model, batch = cases()[case]
    made.check(made.forward(model, batch), batch)
    total, weight = made.loss(model, batch)
    assert weight == made.weight(batch)
    ours = torch.autograd.grad(total / weight, list(model.parameters()))
    mean = MEANS[case](model(batch[0]), batch[1])
    theirs = torch.autograd.grad(mean, list(model.parameters()))
    torch.testing.assert_close(total / weight, mean, rtol=1e-6, atol=1e-6)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", MEANS)
def test_two_parts_add_to_the_whole(case):
    made, model, batch = cases()[case]
    parts = [tuple(t[:3] for t in batch), tuple(t[3:] for t in batch)]
    with torch.no_grad():
        whole, (first, second) = made.evaluate(model, batch), [made.evaluate(model, p) for p in parts]
        loss, halves = made.loss(model, batch), [made.loss(model, part) for part in parts]
    assert loss[0].item() == pytest.approx(sum(half[0].item() for half in halves), rel=1e-5)
    assert loss[1] == sum(half[1] for half in halves)
    for name, (total, weight) in whole.items():
        assert total.item() == pytest.approx(first[name][0].item() + second[name][0].item(), rel=1e-5)
        assert weight == first[name][1] + second[name][1]


@pytest.mark.parametrize("case", MEANS)
def test_metrics_are_those_announced(case):
    made, model, batch = cases()[case]
    model.requires_grad_(False)
    means = {name: float(total) / weight for name, (total, weight) in made.evaluate(model, batch).items()}
    shown = made.summarize(means)
    assert set(shown) == set(made.metrics)
    assert made.metric in shown
    assert all(math.isfinite(value) for value in shown.values())


def test_evaluation_is_without_smoothing():
    (plain, model, batch), (smoothed, _, _) = cases()["classification"], cases()["smoothed"]
    assert smoothed.evaluate(model, batch)["loss"][0] == plain.evaluate(model, batch)["loss"][0]
    assert smoothed.loss(model, batch)[0] != plain.loss(model, batch)[0]


def test_accuracies_by_hand():
    logits = torch.eye(7)[[0, 1, 2, 3]] - torch.arange(7) / 100
    logits[3] = torch.tensor([7.0, 6, 5, 4, 3, 2, 1])
    sums = task("classification", CLASSES).measure(logits, (None, torch.tensor([0, 1, 0, 4])))
    assert sums["accuracy"][0] == 2
    assert sums["top5_accuracy"][0] == 4
    few = DataDescription(input="vector", target="class", input_shape=(2,), classes=3)
    assert task("classification", few).metrics == ("loss", "accuracy")


def test_explained_share_by_hand():
    made = task("regression", NUMBERS)
    targets = 100 + torch.arange(10.0)[:, None]
    sums = made.measure(targets + 1, (targets, targets))
    shown = made.summarize({name: float(total) / weight for name, (total, weight) in sums.items()})
    assert shown["r2"] == pytest.approx(1 - 1 / 8.25, abs=1e-5)
    assert shown["mse"] == shown["mae"] == 1.0
    assert "r2" not in made.summarize({"mse": 1.0, "_target": 5.0, "_target_squared": 25.0})


def test_flat_numbers_do_not_broadcast():
    made = task("regression", NUMBERS)
    flat, column = torch.arange(4.0), torch.arange(4.0)[:, None]
    for output, targets in ((flat, column), (column, flat)):
        made.check(output, (column, targets))
        assert made.loss_of(output, (column, targets))[0] == 0


def test_bits_per_byte_by_hand():
    shown = task("language_model", TOKENS).summarize({"loss": math.log(2) * 5, "accuracy": 0.5})
    assert shown["bits_per_byte"] == pytest.approx(2.0)
    assert shown["perplexity"] == pytest.approx(32.0)
    unknown = DataDescription(input="tokens", target="next_token", input_shape=(5,), vocabulary=11)
    assert task("language_model", unknown).metric == "loss"
    assert task("language_model", TOKENS).metric == "bits_per_byte"


def test_ignored_targets_are_announced_or_refused():
    counting, model, batch = cases()["ignored"]
    assert counting.varying_weight
    assert counting.weight(batch) == (batch[1] != -100).sum()
    fixed = task("language_model", TOKENS)
    assert not fixed.varying_weight
    with pytest.raises(ConfigError, match="task.ignored_targets=true"):
        fixed.check(model(batch[0]), batch)
    with pytest.raises(IndexError):
        fixed.loss(model, batch)


def test_dict_batches_and_outputs_with_logits():
    made = task("classification", CLASSES)
    linear = nn.Linear(6, 7)

    class Named(nn.Module):
        def forward(self, values, scale):
            return SimpleNamespace(logits=linear(values) * scale)

    values, targets = torch.randn(8, 6), torch.arange(8) % 7
    for name in ("labels", "label", "target", "targets", "y"):
        total, weight = made.loss(Named(), {"values": values, "scale": 1.0, name: targets})
        assert total == made.loss(linear, (values, targets))[0]
        assert weight == 8
    with pytest.raises(ConfigError, match="no targets"):
        made.loss(linear, {"values": values})
    with pytest.raises(ConfigError, match="tuple of 3"):
        made.loss(linear, (values, values, targets))


@pytest.mark.parametrize(
    ("option", "description", "output", "targets", "message"),
    [
        ("classification", CLASSES, torch.zeros(4, 5), torch.zeros(4).long(), "num_classes=7"),
        ("classification", CLASSES, torch.zeros(4, 7), torch.zeros(4), "task=regression"),
        ("classification", CLASSES, torch.zeros(4, 7), torch.full((4,), 7), "0 ... 6"),
        ("classification", CLASSES, torch.zeros(()), torch.zeros(4).long(), "not a loss"),
        ("classification", CLASSES, (torch.zeros(4, 7),), torch.zeros(4).long(), "a tuple, not a tensor"),
        ("regression", THREE, torch.zeros(4, 1), torch.zeros(4, 3), "end the model in 3 outputs"),
        ("language_model", TOKENS, torch.zeros(4, 5, 10), torch.zeros(4, 5).long(), r"wanted \[4, 5, 11\]"),
        ("language_model", TOKENS, torch.zeros(4, 11), torch.zeros(4, 5).long(), r"wanted \[4, 5, 11\]"),
    ],
)
def test_what_cannot_fit_is_refused(option, description, output, targets, message):
    with pytest.raises(ConfigError, match=message):
        task(option, description).check(output, (torch.ones(4, 6), targets))


def test_unshifted_targets_are_refused():
    inputs = torch.randint(11, (4, 5))
    made, output = task("language_model", TOKENS), torch.zeros(4, 5, 11)
    with pytest.raises(ConfigError, match="shift them by one"):
        made.check(output, {"input_ids": inputs, "labels": inputs.clone()})
    made.check(output, (inputs, (inputs + 1) % 11))


def test_auto_follows_the_targets():
    assert [resolve(d) for d in (CLASSES, NUMBERS, TOKENS)] == [
        "classification",
        "regression",
        "language_model",
    ]
    made = task("auto", CLASSES, label_smoothing=0.2)
    reference, model, batch = cases()["smoothed"]
    assert type(made) is type(reference)
    assert made.loss(model, batch)[0] == reference.loss(model, batch)[0]
    assert task("auto", TOKENS, ignored_targets=True).varying_weight
    with pytest.raises(ConfigError, match="task=custom"):
        task("auto", OTHER)


def test_keys_without_a_meaning_are_refused():
    with pytest.raises(ConfigError, match=r"task.label_smoothing=0.1.*classes only"):
        task("auto", NUMBERS, label_smoothing=0.1)
    with pytest.raises(ConfigError, match="task.ignored_targets"):
        task("auto", CLASSES, ignored_targets=True)
    with pytest.raises(ConfigError, match="try task=auto"):
        task("classification", NUMBERS)


class Places(nn.Module):
    """Tells positions apart, so that each view has an output of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * 6 * 5, 4, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        return images.flatten(1) @ self.weight


def test_views_are_averaged_as_by_hand():
    seen = DataDescription(input="image", target="class", input_shape=(3, 6, 5), classes=4)
    model, images, targets = Places(), torch.rand(8, 3, 6, 5), torch.arange(8) % 4
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")

    def flipped(shown):
        return (model(shown) + model(torch.flip(shown, (3,)))) / 2

    shifted = (flipped(padded[:, :, :6, :5]) + flipped(padded[:, :, 2:, 2:])) / 2
    wanted = {
        "none": model(images),
        "flip": flipped(images),
        "flip_and_shift": (flipped(images) + shifted) / 2,
    }
    for views, output in wanted.items():
        made = task("classification", seen, test_time_augmentation=views)
        sums = made.evaluate(model, (images, targets))
        loss = functional.cross_entropy(output, targets, reduction="sum")
        torch.testing.assert_close(sums["loss"][0], loss)
        assert sums["accuracy"][0] == (output.argmax(1) == targets).sum()
        torch.testing.assert_close(made.loss(model, (images, targets))[0], wanted_loss(model, images, targets))


def wanted_loss(model, images, targets):
    return functional.cross_entropy(model(images), targets, reduction="sum")


def test_views_are_those_of_images_and_classes():
    with pytest.raises(ConfigError, match=r"test_time_augmentation=flip .*mirrors images"):
        task("classification", CLASSES, test_time_augmentation="flip")
    with pytest.raises(ConfigError, match=r"task.test_time_augmentation=flip.*classes only"):
        task("auto", NUMBERS, test_time_augmentation="flip")
