"""The whole model through torch.compile."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from accel_cli.compile.base import Compile
from accel_cli.errors import ConfigError, Problem


class Full(Compile):
    """torch.compile (Ansel et al. 2024, PyTorch 2) at its default effort."""

    mode: str | None = None
    """torch.compile's own word for its effort; None is its default."""
    mode_of_graphs = "reduce-overhead"
    """The same, where CUDA graphs replay the kernels."""

    def apply(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        model.compile(**self.settings())

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of torch.compile. Raises ConfigError for a backend that there is not."""
        backends = torch.compiler.list_backends(exclude_tags=())
        if self.config.backend not in backends:
            where = f"compile.backend={self.config.backend}"
            raise ConfigError(Problem(where, "torch.compile has no such backend", f"one of: {', '.join(backends)}"))
        # Inductor advises who asks for fp32 to call torch for tf32: here that is a word, which the summary advises.
        warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
        mode = self.mode_of_graphs if self.config.cuda_graphs else self.mode
        effort = {"mode": mode} if mode and self.config.backend == "inductor" else {}
        return {"backend": self.config.backend, "dynamic": self.config.dynamic, **effort}

    def as_written(self) -> AbstractContextManager[Any]:
        return torch.compiler.set_stance("force_eager")
