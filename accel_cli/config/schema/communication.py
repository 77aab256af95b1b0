"""Communication: how gradients travel between processes."""

from __future__ import annotations

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


class Exact(Option):
    """Gradients travel as they are."""


class FP16(Option):
    """Gradients travel as fp16: half the bytes, 10 bits of mantissa, flushed to zero below 6e-8."""


class BF16(Option):
    """Gradients travel as bf16: half the bytes, 7 bits of mantissa, the range of fp32."""


class PowerSGD(Option):
    """A gradient matrix travels as the product of two thin ones; what that loses is added to the next step's."""

    rank: Count = Field(description="columns of the thin matrices: more bytes, less lost")
    start_step: int = Field(ge=0, description="steps that travel exactly before that: early gradients change fast")
    min_compression: float = Field(
        ge=1, description="a matrix is sent whole unless this many times smaller as a product"
    )


class Auto(PowerSGD):
    """Measures link and model at the start, and picks the mildest option that is near the fastest."""


OPTIONS = {
    "exact": Entry(Exact, "accel_cli.communication.base:Communication"),
    "fp16": Entry(FP16, "accel_cli.communication.half:FP16"),
    "bf16": Entry(BF16, "accel_cli.communication.half:BF16"),
    "powersgd": Entry(PowerSGD, "accel_cli.communication.powersgd:PowerSGD"),
    "auto": Entry(Auto, "accel_cli.communication.auto:Auto"),
}
