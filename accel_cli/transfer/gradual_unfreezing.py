"""Train the head first, then the layers before it too, from the last to the first."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from accel_cli.config.schema.transfer import GradualUnfreezing as Schema
from accel_cli.description import DataDescription
from accel_cli.structure import Border, Changed
from accel_cli.transfer.depth import depths
from accel_cli.transfer.finetune import Finetune, still
from accel_cli.transfer.weights import plain


class GradualUnfreezing(Finetune):
    """Howard and Ruder 2018, arXiv:1801.06146, section 3.3. What the weights did not fill is trained from the start."""

    config: Schema
    measured = False

    def apply(self, model: nn.Module, description: DataDescription | None = None) -> list[str]:
        """As finetune does; then only the deepest layer is left to train."""
        lines = super().apply(model, description)
        last = max(depths(model).values(), default=0)
        return [*lines, f"trained at first: {self._reach(model, last)}"]

    def borders(self, steps: int) -> tuple[int, ...]:
        config = self.config
        between = max(1, config.times - 1)
        shares = (config.start + (config.end - config.start) * number / between for number in range(config.times))
        return tuple(sorted({min(round(steps * share), steps - 1) for share in shares}))

    def change(self, model: nn.Module, border: Border) -> Changed:
        """Thaw the next layers: as many at each border, all at the last one."""
        borders = self.borders(border.steps)
        last = max(depths(model).values(), default=0)
        times = borders.index(border.step) + 1
        depth = last - -(-last * times // len(borders))
        return Changed(model, {"depth": depth}, notes=(f"trained from here on: {self._reach(model, depth)}",))

    def replay(self, model: nn.Module, record: dict[str, Any]) -> nn.Module:
        self._reach(model, record["depth"])
        return model

    def frozen_modules(self, model: nn.Module) -> list[nn.Module]:
        return still(model)

    def _reach(self, model: nn.Module, depth: int) -> str:
        """Train the layers from ``depth`` on; returns how much that is."""
        depth_of, trained, total = depths(model), 0, 0
        for name, parameter in model.named_parameters():
            is_due = depth_of[name] >= depth or plain(name) in (self.new or ())
            is_free = not any(fnmatchcase(plain(name), pattern) for pattern in self.config.freeze)
            parameter.requires_grad_(is_due and is_free)
            trained += parameter.numel() * parameter.requires_grad
            total += parameter.numel()
        layers = max(depth_of.values(), default=0) + 1
        return f"the last {layers - depth} of {layers} layers, {trained:,} of {total:,} numbers"
