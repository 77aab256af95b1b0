"""Each of the model's like parts through torch.compile, the rest as written: regional compilation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from accel_cli.compile.full import Full
from accel_cli.errors import ConfigError, Problem


class Blocks(Full):
    """Like blocks share one piece of generated code, so a deep model compiles about as fast as one block."""

    def apply(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        if not blocks:
            why = "the model has no list of like parts to compile one by one"
            raise ConfigError(
                Problem("compile=blocks", why, "try compile=full, or name some: train.blocks=[encoder.*]")
            )
        for block in blocks:
            block.compile(**self.settings())
