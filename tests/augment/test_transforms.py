"""What each transform does to images: distributed as torchvision's, with the values of its functions."""

from __future__ import annotations

import numpy
import pytest
import torch
from augment_cases import Given, images, named, pipeline, transform
from scipy import stats
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from accel_cli.augment import colour
from accel_cli.augment.crop import shift
from accel_cli.augment.draws import Draws
from accel_cli.augment.randaugment import OPERATIONS
from accel_cli.errors import ConfigError

MANY = 4000


def bytes_of(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips(probability: float) -> None:
    image = bytes_of(1, 3, 6, 5)
    out = transform("flip", images(3, 6, 5), probability=probability)(
        image.expand(MANY, -1, -1, -1), Draws(0, *named(MANY))
    )
    flipped = (out == functional.horizontal_flip(image)).flatten(1).all(1)
    assert (flipped | (out == image).flatten(1).all(1)).all()
    assert stats.binomtest(int(flipped.sum()), MANY, probability).pvalue > 1e-4


def test_alternating_flips_show_both_views_in_any_two_epochs_and_half_of_the_images_in_each() -> None:
    image = bytes_of(1, 1, 3, 4).expand(MANY, -1, -1, -1)
    flip = transform("alternating_flip", images(1, 3, 4))
    flipped = [(flip(image, Draws(3, *named(MANY, epoch))) != image).flatten(1).any(1) for epoch in range(4)]
    assert (flipped[0] ^ flipped[1]).all()
    assert torch.equal(flipped[0], flipped[2])
    assert stats.binomtest(int(flipped[1].sum()), MANY, 0.5).pvalue > 1e-4
    other = (flip(image, Draws(4, *named(MANY))) != image).flatten(1).any(1)
    assert 0.4 < float((other ^ flipped[0]).float().mean()) < 0.6


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_shift_is_a_crop_of_the_padded_image(dtype: torch.dtype) -> None:
    image, border = bytes_of(1, 3, 7, 6).to(dtype), 3
    padded = functional.pad(image, border, padding_mode="reflect")
    places = numpy.arange(49)
    down, right = (((p + 0.5) / 7).astype(numpy.float32) for p in (places // 7, places % 7))
    out = shift(image.expand(49, -1, -1, -1), down, right, border)
    for place in places:
        d, r = divmod(int(place), 7)
        assert torch.equal(out[place], padded[0, :, d : d + 7, r : r + 6])


def test_crops_are_uniform_over_all_places() -> None:
    image = torch.arange(81).view(1, 1, 9, 9).float()
    out = transform("crop", images(1, 9, 9), padding=2)(image.expand(MANY, -1, -1, -1), Draws(1, *named(MANY)))
    centres = out[:, 0, 4, 4].long()
    counts = torch.bincount((centres // 9 - 2) * 5 + centres % 9 - 2, minlength=25)
    assert len(counts) == 25
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torch.stack([v2.RandomCrop(9, 2, padding_mode="reflect")(image[0])[0, 4, 4] for _ in range(1000)])
    assert set(theirs.long().tolist()) == set(centres.tolist())


def test_rotations_and_sizes_are_uniform_and_agree_with_torchvision() -> None:
    side = 21
    yy, xx = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    image = torch.exp(-((xx - 0.3) ** 2 + (yy + 0.1) ** 2) * 6).expand(5, 1, side, side)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    draws, described = Draws(3, *named(5)), images(1, side, side)
    rotated = transform("rotate", described, degrees=40.0)(image, draws)
    scaled = transform("scale", described, share=0.3)(image, draws)
    bilinear = v2.InterpolationMode.BILINEAR
    for n in range(5):
        angle, size = (
            (float(draws.uniform(name)[n]) * 2 - 1) * limit for name, limit in (("rotate", 40), ("scale", 0.3))
        )
        theirs = functional.affine(image[n], angle, [0, 0], 1.0, [0, 0], bilinear)
        torch.testing.assert_close(rotated[n][inner], theirs[inner], atol=1e-3, rtol=1e-3)
        theirs = functional.affine(image[n], 0.0, [0, 0], 1 + size, [0, 0], bilinear)
        torch.testing.assert_close(scaled[n][inner], theirs[inner], atol=1e-3, rtol=1e-3)
    assert stats.kstest(Draws(3, *named(MANY)).numbers("rotate"), "uniform").pvalue > 1e-4


def test_a_cutout_is_a_square_uniform_over_all_centres() -> None:
    height, width, side = 8, 9, 4
    cut = transform("cutout", images(2, height, width), length=0.5)
    out = cut(torch.ones(MANY, 2, height, width), Draws(0, *named(MANY)))
    assert torch.equal(out[:, 0], out[:, 1])
    gone = out[:, 0] == 0
    wanted = {}
    for y in range(height):
        for x in range(width):
            box = torch.zeros(height, width, dtype=torch.bool)
            box[max(0, y - side // 2) : y + side // 2, max(0, x - side // 2) : x + side // 2] = True
            wanted[tuple(box.flatten().tolist())] = (y, x)
    assert len(wanted) == height * width
    counts = torch.zeros(height, width)
    for box in gone:
        counts[wanted[tuple(box.flatten().tolist())]] += 1
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-4


def test_a_cutout_has_its_probability_and_is_0_where_the_mean_is() -> None:
    described = images(1, 8, 8, mean=(100.0,), std=(50.0,))
    augment = pipeline(["cutout"], described, cutout={"probability": 0.25, "length": 1.0})
    stored = bytes_of(MANY, 1, 8, 8)
    out, _ = augment(stored, torch.zeros(MANY), *named(MANY), 0, lambda x: (x.float() - 100) / 50)
    cut = (out == 0).flatten(1).float().mean(1) >= 0.25
    assert stats.binomtest(int(cut.sum()), MANY, 0.25).pvalue > 1e-4
    assert torch.equal(out[~cut], (stored[~cut].float() - 100) / 50)


NAMES = {"brightness": functional.adjust_brightness, "contrast": functional.adjust_contrast,
         "saturation": functional.adjust_saturation, "hue": functional.adjust_hue,
         "sharpness": functional.adjust_sharpness}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_have_the_values_of_torchvision(name: str, channels: int) -> None:
    shown = torch.rand(6, channels, 7, 5, generator=torch.Generator().manual_seed(0))
    shown[0] = 0.5
    shown[1, :, :2] = torch.tensor([0.0, 1.0]).view(2, 1)
    factors = torch.tensor([-0.5, -0.2, 0.0, 0.1, 0.3, 0.5] if name == "hue" else [0.0, 0.3, 0.9, 1.0, 1.2, 2.5])
    out = getattr(colour, name)(shown.clone(), factors.view(-1, 1, 1, 1))
    for n in range(6):
        torch.testing.assert_close(out[n], NAMES[name](shown[n], float(factors[n])), atol=1e-4, rtol=1e-4)


def test_color_jitter_has_the_factors_of_torchvision_in_this_order() -> None:
    limits = {"brightness": 0.3, "contrast": 1.4, "saturation": 0.2, "hue": 0.1}
    jitter, draws = transform("color_jitter", images(3, 6, 6), **limits), Draws(0, *named(MANY))
    theirs = v2.ColorJitter(**limits)
    for kind in limits:
        low, high = getattr(theirs, kind)
        factor = jitter.factor(kind, draws).numpy()
        assert stats.kstest(factor, "uniform", (low, high - low)).pvalue > 1e-4, kind
    stored = bytes_of(5, 3, 6, 6)
    draws = Draws(0, *named(5))
    out = jitter(stored, draws)
    assert out.dtype == torch.uint8
    for n in range(5):
        wanted = stored[n] / 255
        for kind in limits:
            wanted = NAMES[kind](wanted, float(jitter.factor(kind, draws)[n]))
        assert (out[n] / 255 - wanted).abs().max() < 0.003


def test_colours_of_floats_in_another_range_are_refused() -> None:
    jitter = transform("color_jitter", images(3, 4, 4, mean=(120.0, 99.0, 3.0), std=(1.0, 1.0, 1.0)))
    with pytest.raises(ConfigError, match=r"augment=color_jitter .*0 \.\. 1.*try augment=basic"):
        jitter(torch.rand(2, 3, 4, 4) * 255, Draws(0, *named(2)))
    with pytest.raises(ConfigError, match=r"1 or 3 channels, not 2"):
        transform("randaugment", images(2, 4, 4))


MAGNITUDES = v2.RandAugment._AUGMENTATION_SPACE
THEIR_NAMES = {"identity": "Identity", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateX",
               "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness", "color": "Color",
               "contrast": "Contrast", "sharpness": "Sharpness", "posterize": "Posterize", "solarize": "Solarize",
               "autocontrast": "AutoContrast", "equalize": "Equalize"}  # fmt: skip


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation])
@pytest.mark.parametrize("magnitude", [3, 9, 30])
def test_operations_of_randaugment_have_the_values_of_torchvision(name: str, magnitude: int) -> None:
    assert list(MAGNITUDES) == list(THEIR_NAMES.values())
    stored = bytes_of(4, 3, 12, 10)
    stored[2] = stored[2] // 3 + 60
    stored[3] = 77
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0])
    operation = OPERATIONS[name]
    assert operation is not None
    out = operation(stored, magnitude / 30, signs)
    assert out.dtype == torch.uint8
    strengths, signed = MAGNITUDES[THEIR_NAMES[name]]
    known = strengths(31, 12, 10)
    apply = v2.RandAugment()._apply_image_or_video_transform
    for n in range(4):
        strength = 0.0 if known is None else float(known[magnitude]) if known.ndim else float(known)
        strength *= float(signs[n]) if signed else 1.0
        theirs = apply(stored[n], THEIR_NAMES[name], strength, v2.InterpolationMode.NEAREST, {})
        differs = (out[n].int() - theirs.int()).abs()
        if name in ("shear_x", "shear_y", "rotate"):  # a pixel half way between two may go to either
            assert float((differs > 0).float().mean()) < 0.03
        else:
            assert int(differs.max()) <= 2  # they round down, twice where there are greys


def test_randaugment_draws_each_operation_and_sign_alike() -> None:
    augment = transform("randaugment", images(3, 12, 12), operations=1, magnitude=30)
    draws = Draws(0, *named(14 * 300))
    chosen = (draws.numbers("randaugment.0") * 14).astype(int)
    assert stats.chisquare(numpy.bincount(chosen, minlength=14)).pvalue > 1e-4
    signs = draws.numbers("randaugment.0.sign") < 0.5
    assert (
        stats.chi2_contingency(numpy.stack([numpy.bincount(chosen[signs == s]) for s in (True, False)])).pvalue > 1e-4
    )
    stored = bytes_of(200, 3, 12, 12)
    out = augment(stored, draws.first(200))
    for n in range(200):
        operation = list(OPERATIONS.values())[chosen[n]]
        sign = torch.tensor([-1.0 if signs[n] else 1.0])
        wanted = stored[n : n + 1] if operation is None else operation(stored[n : n + 1], 1.0, sign)
        assert torch.equal(out[n], wanted[0])
    unit = stored / 255
    torch.testing.assert_close(augment(unit, draws.first(200)), out / 255)


def test_given_draws_have_the_stated_ends() -> None:
    jitter = transform("color_jitter", images(3, 4, 4), brightness=0.4)
    assert float(jitter.factor("brightness", Given(1, color_jitter_brightness=0.0))) == pytest.approx(0.6)
    assert float(jitter.factor("hue", Given(1, color_jitter_hue=1.0))) == pytest.approx(0.1)
