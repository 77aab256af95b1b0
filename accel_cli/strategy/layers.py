"""Layers over the devices of one process: each holds consecutive ones, and activations move from device to device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from accel_cli.errors import ConfigError, Problem
from accel_cli.strategy import stage_costs
from accel_cli.strategy.base import Strategy, Whole
from accel_cli.strategy.stage_module import Held, Stage
from accel_cli.strategy.stages import cut, inputs_of
from accel_cli.world import World


class Layers(Strategy):
    """Model parallelism in its plain form: one device works at a time, and a model fits that fits on none of them."""

    holds_whole = False

    def place(
        self, model: nn.Module, blocks: Sequence[nn.Module], example: Any, task: Any
    ) -> tuple[nn.Module, list[str]]:
        devices = self._devices()
        costs = stage_costs.measured if self.config.balance == "measured" else stage_costs.counted
        stages = self._stages(model, blocks, inputs_of(task, example), len(devices), costs)
        for stage, device in zip(stages, devices, strict=True):
            stage.to(device)
        shown = " + ".join(f"{sum(p.numel() for p in s.parameters()):,}" for s in stages)
        return Chain(stages, devices, self.world.device), [
            f"layers: {shown} parameters on {', '.join(map(str, devices))}"
        ]

    @classmethod
    def check(cls, config: Any, world: World, whole: Whole, example: Any, task: Any) -> None:
        layers = cls(config, world)
        layers._stages(*whole(), inputs_of(task, example), len(layers._devices()), stage_costs.counted)

    def _stages(
        self, model: nn.Module, blocks: Sequence[nn.Module], inputs: Any, parts: int, costs: Callable[..., list[float]]
    ) -> list[Stage]:
        named = self.config.devices
        return cut(
            model,
            inputs,
            parts,
            where=f"strategy.devices={named if named == 'auto' else _list(named)}",
            blocks=blocks,
            names=self.config.cut,
            costs=costs,
            frozen=True,
            fewer=lambda most: f"try strategy.devices={_list(self._devices()[:most])}",
        )

    def _devices(self) -> list[torch.device]:
        """As named; auto: every GPU, or the processor twice, which shows what would happen."""
        named = self.config.devices
        if named == "auto":
            count = torch.cuda.device_count() if self.world.device.type == "cuda" else 0
            named = [f"cuda:{index}" for index in range(count)] if count > 1 else [str(self.world.device)] * 2
        devices = []
        for name in named:
            try:
                device = torch.device(name)
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as error:
                why = f"cannot use {name}: {str(error).splitlines()[0]}"
                raise ConfigError(Problem("strategy.devices", why, "try strategy.devices=auto")) from error
            devices.append(device)
        return devices


class Chain(Held):
    """The whole model, stage after stage, each on its device; the result comes back to ``home``."""

    def __init__(self, stages: Sequence[Any], devices: Sequence[torch.device], home: torch.device) -> None:
        super().__init__(stages)
        self._devices, self._home = tuple(devices), home

    def forward(self, inputs: Tensor) -> Any:
        passed: tuple[Any, ...] = (inputs,)
        for stage, device in zip(self._stages, self._devices, strict=True):
            given = stage(*(value.to(device, non_blocking=True) for value in passed))
            passed = given if isinstance(given, tuple) else (given,)
        return passed[0].to(self._home)


def _list(devices: Sequence[Any]) -> str:
    """As it is typed."""
    return f"[{','.join(map(str, devices))}]"
