"""Basic augmentation: each sample by its own draws, distributed as torchvision's."""

from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from accel_cli.augment.base import Draws, Pipeline, Transform
from accel_cli.augment.basic import Basic
from accel_cli.config.schema.augment import OPTIONS
from accel_cli.config.schema.augment import Basic as Config
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs/augment"
SIDE, PADDING = 9, 2
OFFSETS = 2 * PADDING + 1


def description(shape=(3, SIDE, SIDE), kind="image") -> DataDescription:
    return DataDescription(input=kind, target="class", input_shape=shape, classes=2)


class Images(Pipeline):
    """Called with images alone."""

    def __call__(self, images, epochs, indices):
        return super().__call__(images, None, epochs, indices, 0)[0]


def pipeline(seed=0, shape=(3, SIDE, SIDE), **changes) -> Images:
    config = Config(**{"option": "basic", "flip": 0.0, "crop": 0, "rotate": 0.0, "scale": 0.0} | changes)
    return Images([Basic(config, description(shape))], seed)


def samples(count: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(count, dtype=torch.int64), torch.arange(first, first + count)


def views(image: torch.Tensor) -> torch.Tensor:
    """Every (flip, down, right) view of one image [1, c, h, w], by torchvision's own functions: [views, c, h, w]."""
    padded = functional.pad(image, PADDING, padding_mode="reflect")
    cut = [padded[..., d : d + SIDE, r : r + SIDE] for d in range(OFFSETS) for r in range(OFFSETS)]
    return torch.cat(cut + [functional.horizontal_flip(view) for view in cut])


def count_views(augmented: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    known = views(image)
    matches = (augmented[:, None] == known[None]).flatten(2).all(2)
    assert matches.sum(1).eq(1).all(), "something else than a flip and a crop"
    return torch.bincount(matches.long().argmax(1), minlength=len(known))


def chi_square(counts: torch.Tensor) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())


def test_flips_and_crops_are_distributed_as_those_of_torchvision():
    image, many = torch.rand(1, 3, SIDE, SIDE), 5000
    reference = v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomCrop(SIDE, PADDING, padding_mode="reflect")])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = count_views(torch.cat([reference(image) for _ in range(many)]), image)
    ours = count_views(pipeline(flip=0.5, crop=PADDING)(image.expand(many, -1, -1, -1), *samples(many)), image)
    # 49 degrees of freedom: above 85.4 with probability 0.001.
    assert chi_square(ours) < 85.4
    assert chi_square(theirs) < 85.4
    homogeneity = ((ours - theirs) ** 2 / (ours + theirs)).sum()
    assert homogeneity < 85.4


@pytest.mark.parametrize("flip", [0.0, 0.2, 1.0])
def test_the_flip_rate(flip):
    image = torch.rand(1, 3, SIDE, SIDE).expand(4000, -1, -1, -1)
    out = pipeline(flip=flip)(image, *samples(4000))
    flipped = (out == image.flip(3)).flatten(1).all(1)
    assert (out == image).flatten(1).all(1).logical_or(flipped).all()
    assert abs(float(flipped.float().mean()) - flip) < 4 * (0.25 / 4000) ** 0.5 * (0 < flip < 1) + 1e-9


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(13)), cut=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_sample_is_changed_the_same_way_in_any_batch(order, cut, seed):
    augment = pipeline(seed, (2, 9, 6), flip=0.5, crop=3, rotate=30.0, scale=0.2)
    images = torch.rand(13, 2, 9, 6)
    epochs, indices = torch.arange(13) // 5, torch.arange(13) % 5
    whole = augment(images, epochs, indices)
    for part in (list(order)[:cut], list(order)[cut:]):
        assert torch.equal(augment(images[part], epochs[part], indices[part]), whole[part])


def test_epochs_seeds_and_samples_are_changed_in_different_ways():
    image = torch.rand(1, 3, SIDE, SIDE).expand(2, -1, -1, -1)
    drawn = {
        str(pipeline(seed, rotate=90.0)(image, torch.full((2,), epoch), torch.arange(2))[i].tolist())
        for seed in range(3) for epoch in range(3) for i in range(2)
    }  # fmt: skip
    assert len(drawn) == 18


def test_nothing_is_changed_where_all_is_zero_and_the_input_never():
    images = torch.rand(8, 3, SIDE, SIDE)
    before = images.clone()
    assert pipeline()(images, *samples(8)) is images
    pipeline(flip=0.5, crop=2, rotate=10.0, scale=0.1)(images, *samples(8))
    assert torch.equal(images, before)
    assert Images([], 0)(images, *samples(8)) is images
    assert Transform(None, description())(images, Draws(0, *samples(8))) is images


def test_rotation_and_scale_agree_with_torchvision():
    side = 21
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    image = torch.exp(-((xx - 0.3) ** 2 + (yy + 0.1) ** 2) * 6).expand(1, 1, side, side)
    config = Config(option="basic", flip=0.0, crop=0, rotate=40.0, scale=0.3)
    draws = Draws(3, *samples(6))
    out = Basic(config, description((1, side, side)))(image.expand(6, -1, -1, -1), draws)
    angles = (draws.uniform("basic.rotate") * 2 - 1) * 40
    sizes = 1 + (draws.uniform("basic.scale") * 2 - 1) * 0.3
    for n in range(6):
        theirs = functional.affine(
            image, float(angles[n]), [0, 0], float(sizes[n]), [0, 0], v2.InterpolationMode.BILINEAR
        )
        inner = (slice(None), slice(6, -6), slice(6, -6))
        torch.testing.assert_close(out[n][inner], theirs[0][inner], atol=1e-3, rtol=1e-3)


def test_draws_are_uniform_and_do_not_depend_on_each_other():
    draws = Draws(0, torch.arange(40).repeat_interleave(500), torch.arange(500).repeat(40))
    columns = torch.stack([draws.uniform(name) for name in ("a", "b", "c")])
    assert columns.dtype == torch.float32
    assert columns.min() >= 0
    assert columns.max() < 1
    for column in columns:
        assert chi_square(torch.histc(column, 50, 0, 1)) < 85.4
    correlation = torch.corrcoef(torch.cat([columns, columns[:1].roll(1, 1), columns[:1].roll(500, 1)]))
    assert (correlation - torch.eye(5)).abs().max() < 4 / 20000**0.5


def test_draws_are_pinned():
    assert Draws(1, torch.tensor([0, 7]), torch.tensor([0, 123])).uniform("basic.flip").tolist() == [
        0.014713704586029053,
        0.8126750588417053,
    ]


def test_other_inputs_and_borders_too_wide_are_refused():
    config = Config(option="basic", flip=0.5, crop=4, rotate=0.0, scale=0.0)
    with pytest.raises(ConfigError, match=r"augment=basic .* vector .* try augment=none"):
        Basic(config, description((5,), "vector"))
    with pytest.raises(ConfigError, match=r"try augment.transforms.basic.crop=0"):
        Basic(config, description((1, 4, 4)))


@pytest.mark.parametrize("option", OPTIONS)
def test_defaults_are_valid_and_complete(option):
    values = yaml.safe_load((FOLDER / f"{option}.yaml").read_text())
    OPTIONS[option].schema(option=option, **values)
    assert set(values) == set(OPTIONS[option].schema.model_fields) - {"option"}


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"crop": -1}, {"crop": 1.0}, {"rotate": -1.0}, {"scale": 1.0}])
def test_the_schema_refuses(wrong):
    with pytest.raises(ValidationError):
        pipeline(**wrong)
