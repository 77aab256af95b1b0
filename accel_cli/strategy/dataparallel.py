"""Several GPUs of one process: each gets a share of every batch, and the first holds the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from accel_cli.strategy.base import Strategy


class DataParallel(Strategy):
    """torch.nn.DataParallel, which copies the weights to every GPU in every forward. Without GPUs, the model itself."""

    def wrap(self, model: nn.Module, blocks: Sequence[nn.Module], communication: Any, precision: Any) -> nn.Module:
        if self.world.device.type != "cuda":
            return model
        wanted = self.config.devices
        return nn.DataParallel(model, list(range(torch.cuda.device_count() if wanted == "auto" else wanted)))
