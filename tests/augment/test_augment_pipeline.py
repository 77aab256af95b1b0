"""The laws of every option: the same bits for any cut into batches, inputs that stay, and the order of normalising."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from augment_cases import SAMPLES, images, named, pipeline, transform
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_cli.augment.base import Growing, Transform
from accel_cli.augment.draws import Draws
from accel_cli.config.parts import table
from accel_cli.description import DataDescription
from accel_cli.errors import ConfigError

OPTIONS = [option for option in table("augment") if option not in ("none", "sequence_length_warmup")]
CHAINS = [[option] for option in OPTIONS] + [
    ["flip", "crop", "cutout"],
    ["alternating_flip", "crop", "color_jitter", "rotate", "mixup", "cutout"],
    ["crop", "mixup", "cutout", "cutmix", "progressive_resize"],
]
CHANGES = {
    "crop": {"padding": 2}, "mixup": {"probability": 0.4}, "cutmix": {"probability": 0.5},
    "cutout": {"probability": 0.5},    "basic": {"rotate": 20.0, "scale": 0.2},
}  # fmt: skip
TOKENS = DataDescription(input="tokens", target="next_token", input_shape=(20,), vocabulary=9)


def described(channels: int = 3) -> DataDescription:
    return images(channels, 9, 8, mean=(110.0,) * channels, std=(60.0,) * channels)


def normalise(stored: torch.Tensor) -> torch.Tensor:
    return (stored.float() - 110) / 60


class Set:
    """A set of random images, read by the keys that a pipeline asks for."""

    def __init__(self, channels: int = 3) -> None:
        draws = torch.Generator().manual_seed(0)
        self.inputs = torch.randint(0, 256, (SAMPLES, channels, 9, 8), dtype=torch.uint8, generator=draws)
        self.targets = torch.randint(0, 10, (SAMPLES,), generator=draws)

    def through(self, augment: Any, epochs: torch.Tensor, indices: torch.Tensor, step: int = 3) -> Any:
        _, rows = augment.keys(epochs, indices)
        return augment(self.inputs[rows], self.targets[rows], epochs, indices, step, normalise)


@pytest.mark.parametrize("chain", CHAINS, ids="-".join)
@pytest.mark.parametrize("channels", [1, 3])
@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(23)), cut=st.integers(1, 22), seed=st.integers(0, 99))
def test_a_sample_becomes_the_same_bits_in_any_batch(
    chain: list[str], channels: int, order: Any, cut: int, seed: int
) -> None:
    augment, data = pipeline(chain, described(channels), seed, **CHANGES), Set(channels)
    epochs, indices = torch.arange(23) // 9, torch.arange(23) * 37 % SAMPLES
    inputs, targets = data.through(augment, epochs, indices)
    assert inputs.dtype == torch.float32
    assert len(inputs) == len(targets) == 23
    for part in (list(order)[:cut], list(order)[cut:]):
        again, wanted = data.through(augment, epochs[part], indices[part])
        assert torch.equal(again, inputs[part])
        assert torch.equal(wanted, targets[part])


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_read_stays_as_it_was_and_epochs_differ(option: str) -> None:
    augment = pipeline([option], described(), **CHANGES)
    data = Set()
    epochs, indices = named(12)
    _, rows = augment.keys(epochs, indices)
    given_rows, classes = data.inputs[rows].float(), data.targets[rows]
    kept, known = given_rows.clone(), classes.clone()
    if option not in ("color_jitter", "randaugment"):
        first, _ = augment(given_rows, classes, epochs, indices, 0)
        assert len(first) == 12
    assert torch.equal(given_rows, kept)
    assert torch.equal(classes, known)
    if option != "progressive_resize":
        second, _ = data.through(augment, *named(12, epoch=1))
        assert not torch.equal(data.through(augment, epochs, indices)[0], second)


def test_pixels_move_before_normalising_and_boxes_are_cut_after_it() -> None:
    seen: list[tuple[str, torch.dtype]] = []

    def spy(option: str) -> Transform:
        made = transform(option, described(), **CHANGES.get(option, {}))

        class Spied(type(made)):  # type: ignore[misc]
            def __call__(self, inputs: torch.Tensor, draws: Any) -> torch.Tensor:
                seen.append((option, inputs.dtype))
                return super().__call__(inputs, draws)

        made.__class__ = Spied
        return made

    chain = pipeline([], described())
    chain = type(chain)([spy(o) for o in ("flip", "crop", "color_jitter", "cutout", "rotate", "basic")], 0)
    Set().through(chain, *named(4))
    stored, floats = torch.uint8, torch.float32
    assert seen == [
        ("flip", stored),
        ("crop", stored),
        ("color_jitter", stored),
        ("cutout", floats),
        ("rotate", floats),
        ("basic", floats),
    ]


def test_one_pass_and_single_options_do_the_same_kind_of_thing() -> None:
    basic = transform("basic", described(), flip=1.0, crop=0)
    flip = transform("flip", described(), probability=1.0)
    assert basic.on_stored
    assert not transform("basic", described(), rotate=1.0).on_stored
    stored = Set().inputs[:4]
    assert torch.equal(
        pipeline(["basic"], described(), basic={"flip": 1.0, "crop": 0})(stored, None, *named(4), 0)[0], stored.flip(3)
    )
    assert torch.equal(flip(stored, Draws(0, *named(4))), stored.flip(3))


@pytest.mark.parametrize("option", OPTIONS)
def test_other_inputs_are_refused_with_a_fix(option: str) -> None:
    with pytest.raises(ConfigError, match=f"augment={option} .*try augment="):
        transform(option, TOKENS)


def test_images_have_no_length_to_warm_up() -> None:
    with pytest.raises(ConfigError, match=r"augment=sequence_length_warmup .*cuts tokens.*try augment=none"):
        transform("sequence_length_warmup", described())


RESIZE = {"initial": 0.5, "delay": 0.5, "finetune": 0.2}


@pytest.mark.parametrize(
    ("progress", "side"),
    [
        (0.0, 16),
        (0.49, 16),
        (0.5, 16),
        (0.55, 20),
        (0.6, 20),
        (0.65, 24),
        (0.75, 28),
        (0.78, 32),
        (0.8, 32),
        (0.99, 32),
    ],
)
def test_images_grow_as_by_hand(progress: float, side: int) -> None:
    resize = transform("progressive_resize", images(3, 32, 32), **RESIZE)
    assert isinstance(resize, Growing)
    assert resize.sides(32, 32, progress) == (side, side)
    shown = torch.rand(2, 3, 32, 32)
    out, targets = resize.grow(shown, "as they are", progress)
    assert out.shape == (2, 3, side, side)
    assert targets == "as they are"
    torch.testing.assert_close(out.mean(), shown.mean(), atol=0.01, rtol=0.01)


def test_images_are_whole_at_the_end_whatever_their_sides() -> None:
    resize = transform("progressive_resize", images(3, 30, 9), **RESIZE)
    assert resize.sides(30, 9, 0.0) == (16, 4)
    assert resize.sides(30, 9, 1.0) == (30, 9)
    assert transform("progressive_resize", images(3, 9, 9), delay=1.0, finetune=0.0).sides(9, 9, 0.99) == (4, 4)
    with pytest.raises(ConfigError, match=r"delay=0.9 .*try augment.transforms.progressive_resize.delay=0.8"):
        transform("progressive_resize", images(3, 9, 9), delay=0.9)


@pytest.mark.parametrize(
    ("progress", "length"), [(0.0, 4), (0.12, 4), (0.125, 8), (0.25, 12), (0.49, 16), (0.5, 20), (0.9, 20)]
)
def test_windows_grow_as_by_hand(progress: float, length: int) -> None:
    warmup = transform("sequence_length_warmup", TOKENS, start=4, share=0.5, sizes=4)
    tokens = torch.randint(9, (3, 20))
    inputs, targets = warmup.grow(tokens, tokens + 1, progress)
    assert torch.equal(inputs, tokens[:, :length])
    assert torch.equal(targets, tokens[:, :length] + 1)
    assert torch.equal(warmup.grow(tokens, torch.arange(3), progress)[1], torch.arange(3))


def test_a_start_longer_than_a_window_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"start=21 .*try augment.transforms.sequence_length_warmup.start=5"):
        transform("sequence_length_warmup", TOKENS, start=21)
