"""Precision: the numbers used in forward and backward."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Precision(Option):
    """Single precision throughout."""


class TF32(Option):
    """fp32 weights; products round their factors to 10 bits of mantissa, on tensor cores."""


class Auto(Option):
    """The precision whose steps are clearly the quickest, by timing them; fp32 otherwise."""


class BF16(Option):
    """bfloat16 autocast over fp32 weights: fp32's range, no loss scaling."""


class FP16(Option):
    """Half-precision autocast over fp32 weights, with dynamic loss scaling."""

    initial_scale: float = Field(gt=0, description="loss scale at the first step")
    growth_interval: int = Field(gt=0, description="steps without overflow before the scale doubles")


class BF16Pure(Option):
    """Weights, gradients and optimizer state in bfloat16: half of the memory, and small updates are lost."""


class _Scaled(Option):
    min_size: int = Field(ge=16, description="linear layers with fewer inputs or outputs stay in bf16")


class FP8(_Scaled):
    """float8 matrix products in linear layers, everything else as in bf16."""

    recipe: Literal["tensorwise", "rowwise"] = Field(description="one scale for a matrix, or one for each of its rows")
    gather: Literal["own", "fp8"] = Field(description="what fsdp gathers these weights in: their own type, or fp8")


class MXFP8(_Scaled):
    """The same with a scale for every 32 elements, which the hardware applies."""


OPTIONS = {
    "fp32": Entry(Precision, "accel_cli.precision.base:Precision"),
    "tf32": Entry(TF32, "accel_cli.precision.tf32:TF32"),
    "bf16": Entry(BF16, "accel_cli.precision.bf16:BF16"),
    "fp16": Entry(FP16, "accel_cli.precision.fp16:FP16"),
    "bf16_pure": Entry(BF16Pure, "accel_cli.precision.bf16_pure:BF16Pure"),
    "fp8": Entry(FP8, "accel_cli.precision.fp8:FP8", requires=("torchao",)),
    "mxfp8": Entry(MXFP8, "accel_cli.precision.mxfp8:MXFP8", requires=("torchao",)),
    "auto": Entry(Auto, "accel_cli.precision.base:Precision"),
}
