"""The whole model through torch.compile."""

from __future__ import annotations

import torch
from torch import nn

from accel_cli.compile.base import Compile
from accel_cli.errors import ConfigError, Problem


class Full(Compile):
    def apply(self, model: nn.Module) -> None:
        backends = torch.compiler.list_backends(exclude_tags=())
        if self.config.backend not in backends:
            where = f"compile.backend={self.config.backend}"
            raise ConfigError(Problem(where, "torch.compile has no such backend", f"one of: {', '.join(backends)}"))
        model.compile(backend=self.config.backend, dynamic=self.config.dynamic)
