"""Mixing: partners, weights and targets."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import torch
from augment_cases import SAMPLES, images, named, pipeline, transform
from scipy import stats

from accel_cli.augment.beta import quantiles
from accel_cli.augment.draws import Draws
from accel_cli.config.parts import implementation, table
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError

MANY = 4000
CLASSES = images(1, 8, 8)


def read(description: DataDescription) -> tuple[torch.Tensor, torch.Tensor]:
    """A set whose images say which sample they are."""
    inputs = torch.arange(SAMPLES).float().view(-1, *[1] * len(description.input_shape))
    return inputs.expand(-1, *description.input_shape), torch.arange(SAMPLES) % 10


def mixed(names: list[str], description: DataDescription = CLASSES, count: int = MANY, **changes: Any) -> Any:
    augment = pipeline(names, description, **changes)
    epochs, indices = torch.zeros(count, dtype=torch.int64), torch.arange(count) % SAMPLES
    epochs += torch.arange(count) // SAMPLES
    all_epochs, rows = augment.keys(epochs, indices)
    assert torch.equal(rows[:count], indices)
    inputs, targets = read(description)
    if description.target == "number":
        targets = torch.arange(SAMPLES).float()[:, None].expand(-1, description.outputs)
    return augment(inputs[rows].clone(), targets[rows].clone(), epochs, indices, 0), rows, all_epochs


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 1.7, 8.0, 100.0])
def test_weights_are_those_of_a_beta_distribution(alpha: float) -> None:
    table_of = quantiles(alpha)
    places = (numpy.arange(len(table_of)) + 0.5) / len(table_of)
    numpy.testing.assert_allclose(table_of, stats.beta.ppf(places, alpha, alpha), atol=3e-5)
    made = transform("mixup", CLASSES, alpha=alpha)
    draws = Draws(0, torch.arange(MANY) // SAMPLES, torch.arange(MANY) % SAMPLES)
    drawn = made._quantiles[(draws.numbers("mix.share") * len(table_of)).astype(int)]
    if alpha > 0.1:  # below, a fifth of the weights are 1 in float32
        assert stats.kstest(drawn, "beta", (alpha, alpha)).pvalue > 1e-4


def test_partners_are_uniform_and_of_the_same_epoch() -> None:
    (_, _), rows, epochs = mixed(["mixup"])
    assert len(rows) == 2 * MANY
    assert torch.equal(epochs[:MANY], epochs[MANY:])
    assert stats.chisquare(torch.bincount(rows[MANY:] // 10, minlength=SAMPLES // 10).numpy()).pvalue > 1e-4
    assert abs(stats.spearmanr(rows[:MANY].numpy(), rows[MANY:].numpy()).statistic) < 0.06


def test_mixup_is_the_weighted_mean_of_both() -> None:
    (inputs, targets), rows, _ = mixed(["mixup"], mixup={"alpha": 1.0})
    own, other = rows[:MANY], rows[MANY:]
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(MANY))
    differ = own % 10 != other % 10
    share = targets.gather(1, (own % 10)[:, None])[:, 0]
    torch.testing.assert_close(share[~differ], torch.ones(int((~differ).sum())))
    value = (own * share + other * (1 - share)).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    torch.testing.assert_close(inputs[differ], value[differ], rtol=1e-4, atol=1e-3)
    assert stats.kstest(share[differ].numpy(), "uniform").pvalue > 1e-4


def test_cutmix_pastes_a_box_and_counts_its_pixels() -> None:
    described = images(2, 10, 12)
    (inputs, targets), rows, _ = mixed(["cutmix"], described)
    own, other = rows[:MANY], rows[MANY:]
    from_other = inputs == other.view(-1, 1, 1, 1)
    assert (from_other | (inputs == own.view(-1, 1, 1, 1))).all()
    assert torch.equal(from_other[:, 0], from_other[:, 1])
    kept = 1 - from_other[:, 0].flatten(1).float().mean(1)
    differ = (own % 10 != other % 10) & (own != other)
    torch.testing.assert_close(targets.gather(1, (own % 10)[:, None])[differ, 0], kept[differ])
    for box in from_other[:200, 0]:
        rows_of, columns_of = box.any(1), box.any(0)
        assert torch.equal(box, rows_of[:, None] & columns_of[None])
        for line in (rows_of, columns_of):
            assert (line.int().diff().abs().sum()) <= 2
    hit = from_other[own != other, 0].float().mean(0)
    assert float(hit.min()) > 0.1


def test_both_exclude_each_other_and_leave_the_rest() -> None:
    changes: Any = {"mixup": {"probability": 0.3, "alpha": 5.0}, "cutmix": {"probability": 0.5}}
    (inputs, targets), rows, _ = mixed(["mixup", "cutmix"], **changes)
    count = len(rows) - MANY
    assert stats.binomtest(count, MANY, 0.8).pvalue > 1e-4
    values = inputs.flatten(1)
    means = (values != values.round()).any(1)
    two = values.amax(1) != values.amin(1)
    assert not (means & two).any()
    assert 0.27 < float(means.float().mean()) < 0.33
    assert 0.4 < float(two.float().mean()) < 0.52
    whole = targets.amax(1) == 1
    assert (inputs[:, 0, 0, 0] == rows[:MANY])[whole & ~two & ~means].float().mean() > 0.9
    torch.testing.assert_close(targets.sum(1), torch.ones(MANY))


def test_more_than_one_of_both_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)add up to 2.*try augment.transforms.mixup.probability=0.5 "):
        pipeline(["mixup", "cutmix"], CLASSES)


def test_numbers_and_vectors_are_mixed_alike() -> None:
    described = images(6, input="vector", target="number", outputs=2, classes=None)
    (inputs, targets), _, _ = mixed(["mixup"], described, mixup={"probability": 0.5})
    torch.testing.assert_close(inputs[:, :2], targets)
    assert 0.4 < float((targets != targets.round()).any(1).float().mean()) < 0.6


def test_a_partner_goes_through_what_comes_before_by_its_own_draws() -> None:
    described = images(1, 4, 6)
    data = torch.rand(SAMPLES, 1, 4, 6)
    before = pipeline(["flip", "cutout"], described)
    both = pipeline(["flip", "cutout", "mixup"], described, mixup={"alpha": 1.0})
    epochs, indices = named(200, epoch=4)
    all_epochs, rows = both.keys(epochs, indices)
    inputs, _ = both(data[rows], torch.zeros(400, dtype=torch.int64), epochs, indices, 0)
    alone, _ = before(data[rows], None, all_epochs, rows, 0)
    draws = Draws(0, epochs, indices)
    share = torch.from_numpy(quantiles(1.0)[(draws.numbers("mix.share") * 65536).astype(int)]).view(-1, 1, 1, 1)
    assert torch.equal(inputs, alone[:200] * share + alone[200:] * (1 - share))


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"train_samples": None}, r"a stream has none.*try augment=none"),
        ({"target": "other"}, r"classes or numbers.*try augment=none"),
        ({"input": "tokens", "input_shape": (5,), "target": "next_token"}, r"mixes images.*try augment=none"),
    ],
)
@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_what_cannot_be_mixed_is_refused(option: str, facts: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=rf"augment={option} .*{why}"):
        transform(option, images(**{"input_shape": (1, 8, 8), **facts}))


def test_cross_entropy_takes_mixed_targets_with_smoothing() -> None:
    config: Any = table("task")["classification"].schema(
        option="classification", label_smoothing=0.1, test_time_augmentation="none"
    )
    task = implementation("task", config)(config, CLASSES)
    (inputs, targets), _, _ = mixed(["mixup"], count=50)
    logits = torch.randn(50, 10)
    loss, weight = task.loss_of(logits, (inputs, targets))
    smooth = targets * 0.9 + 0.1 / 10
    torch.testing.assert_close(loss, -(smooth * logits.log_softmax(1)).sum())
    assert weight == 50
