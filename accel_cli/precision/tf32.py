"""fp32 weights, with matrix products and convolutions that round their factors to TF32."""

from __future__ import annotations

from accel_cli.precision.base import Precision


class TF32(Precision):
    """fp32's range with 10 bits of mantissa, on tensor cores (NVIDIA A100 whitepaper, 2020)."""

    tf32 = True
