"""Augment: inputs changed at random, so that a model meets more than the set holds; and sizes that grow."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option

Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Alpha = Annotated[float, Field(ge=0.05, le=100)]


class Transform(Option):
    """Inputs as they are."""

    transforms: dict[str, Option] = Field(max_length=0, description="none: no option stands here")


class Basic(Option):
    """Images flipped, shifted, rotated and scaled, drawn anew for each sample and epoch."""

    flip: Probability = Field(description="probability that an image is mirrored left to right")
    crop: int = Field(
        ge=0, description="pixels of reflected border to cut from: shifts up to this far each way; 0: none"
    )
    rotate: float = Field(ge=0, le=180, description="degrees: the angle is uniform in -rotate .. rotate")
    scale: float = Field(ge=0, lt=1, description="share: the size is uniform in 1 - scale .. 1 + scale")


class Flip(Option):
    """Images mirrored left to right, drawn anew in every epoch."""

    probability: Probability = Field(description="that an image is mirrored")


class AlternatingFlip(Option):
    """Half of the images mirrored in even epochs, the other half in odd ones."""


class Crop(Option):
    """Images cut from a reflected border."""

    padding: int = Field(ge=1, description="pixels of border: shifts up to this far each way")


class Rotate(Option):
    """Images rotated about their centre."""

    degrees: float = Field(gt=0, le=180, description="the angle is uniform in -degrees .. degrees")


class Scale(Option):
    """Images scaled about their centre."""

    share: float = Field(gt=0, lt=1, description="the size is uniform in 1 - share .. 1 + share")


class ColorJitter(Option):
    """Brightness, contrast, saturation and hue changed at random."""

    brightness: float = Field(ge=0, description="the factor is uniform in 1 - brightness .. 1 + brightness, never < 0")
    contrast: float = Field(ge=0, description="the same, towards the mean grey of the image")
    saturation: float = Field(ge=0, description="the same, towards the grey of each pixel")
    hue: float = Field(ge=0, le=0.5, description="turns of the colour circle: uniform in -hue .. hue")


class Cutout(Option):
    """A square of each image blanked, wherever its centre falls."""

    length: Share = Field(description="side of the square, as a share of the image's shorter side")
    probability: Probability = Field(description="that an image is cut")


class RandAugment(Option):
    """A few of fourteen operations of one strength, drawn for each image."""

    operations: int = Field(ge=1, le=14, description="operations on each image, one after another")
    magnitude: int = Field(ge=0, le=30, description="their strength, of 30")


class MixUp(Option):
    """Weighted means of two samples and of their targets."""

    alpha: Alpha = Field(description="the weight is drawn from Beta(alpha, alpha): the larger, the closer to 1/2")
    probability: Probability = Field(description="that a sample is mixed; with cutmix both add up to at most 1")


class CutMix(Option):
    """A box of another image pasted in, targets by the share of pixels."""

    alpha: Alpha = Field(description="the share that stays is drawn from Beta(alpha, alpha); 1: uniform")
    probability: Probability = Field(description="that a sample is mixed; with mixup both add up to at most 1")


class ProgressiveResize(Option):
    """Images small at first, whole at the end: early steps cost less."""

    initial: Share = Field(description="the first images' sides, as a share of the whole; rounded to multiples of 4")
    delay: Probability = Field(description="share of the run that they stay so")
    finetune: Probability = Field(description="share of the run, at its end, with whole images; linear in between")


class SequenceLengthWarmup(Option):
    """Short windows of tokens at first, whole ones later: early steps cost less and are steadier."""

    start: int = Field(ge=1, description="tokens of the first windows")
    share: Share = Field(description="share of the run over which they grow to the whole")
    sizes: int = Field(ge=1, le=64, description="different lengths on the way: each is compiled and allocated anew")


OPTIONS = {
    "none": Entry(Transform, "accel_cli.augment.base:Transform"),
    "basic": Entry(Basic, "accel_cli.augment.basic:Basic"),
    "flip": Entry(Flip, "accel_cli.augment.flip:Flip"),
    "alternating_flip": Entry(AlternatingFlip, "accel_cli.augment.flip:AlternatingFlip"),
    "crop": Entry(Crop, "accel_cli.augment.crop:Crop"),
    "rotate": Entry(Rotate, "accel_cli.augment.rotate:Rotate"),
    "scale": Entry(Scale, "accel_cli.augment.rotate:Scale"),
    "color_jitter": Entry(ColorJitter, "accel_cli.augment.color_jitter:ColorJitter"),
    "cutout": Entry(Cutout, "accel_cli.augment.cutout:Cutout"),
    "randaugment": Entry(RandAugment, "accel_cli.augment.randaugment:RandAugment"),
    "mixup": Entry(MixUp, "accel_cli.augment.mix:MixUp"),
    "cutmix": Entry(CutMix, "accel_cli.augment.mix:CutMix"),
    "progressive_resize": Entry(ProgressiveResize, "accel_cli.augment.grow:ProgressiveResize"),
    "sequence_length_warmup": Entry(SequenceLengthWarmup, "accel_cli.augment.grow:SequenceLengthWarmup"),
}
