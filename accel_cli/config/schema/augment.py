"""Augment: inputs changed at random, so that a model meets more than the set holds."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Transform(Option):
    """Inputs as they are."""

    transforms: dict[str, Option] = Field(max_length=0, description="none: no option stands here")


class Basic(Option):
    """Images flipped, shifted, rotated and scaled, drawn anew for each sample and epoch."""

    flip: float = Field(ge=0, le=1, description="probability that an image is mirrored left to right")
    crop: int = Field(
        ge=0, description="pixels of reflected border to cut from: shifts up to this far each way; 0: none"
    )
    rotate: float = Field(ge=0, le=180, description="degrees: the angle is uniform in -rotate .. rotate")
    scale: float = Field(ge=0, lt=1, description="share: the size is uniform in 1 - scale .. 1 + scale")


OPTIONS = {
    "none": Entry(Transform, "accel_cli.augment.base:Transform"),
    "basic": Entry(Basic, "accel_cli.augment.basic:Basic"),
}
