"""A device of no kind that torch knows: it lies in host memory and keeps account of what the engine asks of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ranks import train_here
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from accel_cli.config.schema import hardware as schema
from accel_cli.config.schema.base import Entry
from accel_cli.hardware.base import Hardware

PEAK = 12_345
PEAK_FLOPS = 1e12


class StandIn(Hardware):
    sum_dtype = torch.float32
    asynchronous = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.calls: list[str] = []
        self.unread = 0

    def device(self, local_rank: int) -> torch.device:
        self.calls.append(f"device {local_rank}")
        return super().device(local_rank)

    def start(self, device: torch.device, determinism: str) -> None:
        self.calls.append(f"start {device} {determinism}")
        super().start(device, determinism)

    def seed(self, value: int) -> None:
        self.calls.append("seed")
        super().seed(value)

    def arrange(self, model: nn.Module) -> list[str]:
        self.calls.append(f"arrange {sum(p.numel() for p in model.parameters())}")
        return ["arranged by the stand-in"]

    def read_later(self, values: torch.Tensor) -> Callable[[], list[Any]]:
        """Wrong numbers until the device had time: the next call of ``seed``, which begins a step."""
        self.calls.append("read_later")
        return values.clone().tolist

    def peak_memory(self) -> int | None:
        self.calls.append("peak_memory")
        return PEAK

    def operation_counter(self):
        return FlopCounterMode(display=False)

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        return PEAK_FLOPS if dtype == torch.float32 else None


def train_on_stand_in(folder: str, resume: bool = False) -> list[str]:
    """One rank's part of a run on it; what was asked of it, in order."""
    made: list[StandIn] = []

    def build(config: Any) -> StandIn:
        made.append(StandIn(config))
        return made[-1]

    global made_here
    made_here = build
    schema.OPTIONS["cpu"] = Entry(schema.CPU, f"{__name__}:made_here")
    train_here(folder, resume, 0)
    (Path(folder) / f"calls-{os.environ['RANK']}.json").write_text(json.dumps(made[0].calls))
    return made[0].calls


made_here: Callable[[Any], StandIn]
