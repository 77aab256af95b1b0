"""Precision: the numbers used in forward and backward."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Precision(Option):
    """Single precision throughout."""


class Auto(Option):
    """The fastest precision that is safe on this device, by its capability."""


class BF16(Option):
    """bfloat16 autocast over fp32 weights: fp32's range, no loss scaling."""


class FP16(Option):
    """Half-precision autocast over fp32 weights, with dynamic loss scaling."""

    initial_scale: float = Field(gt=0, description="loss scale at the first step")
    growth_interval: int = Field(gt=0, description="steps without overflow before the scale doubles")


OPTIONS = {
    "fp32": Entry(Precision, "accel_cli.precision.base:Precision"),
    "bf16": Entry(BF16, "accel_cli.precision.bf16:BF16"),
    "fp16": Entry(FP16, "accel_cli.precision.fp16:FP16"),
    "auto": Entry(Auto, "accel_cli.precision.base:Precision"),
}
