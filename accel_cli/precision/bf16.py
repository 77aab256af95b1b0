"""bfloat16 autocast over fp32 weights."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch

from accel_cli.precision.base import Precision


class BF16(Precision):
    """fp32's range in half the bits: no loss scaling. What stays in fp32 may round to TF32."""

    dtype = torch.bfloat16
    tf32 = True

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=self.dtype)
