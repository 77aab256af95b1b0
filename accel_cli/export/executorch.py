"""ExecuTorch's .pte: a program for phones and small devices, with all its memory planned beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torch import Tensor, nn

from accel_cli.errors import ConfigError, Problem
from accel_cli.export.base import Export
from accel_cli.export.capture import captured

FILE = "model.pte"
WHERE = "export=executorch"


class ExecuTorch(Export):
    """For one sample at a time: the shapes in a plan of memory are fixed."""

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        program = captured(model, inputs[:1], WHERE, any_batch=False)
        partitioners = [XnnpackPartitioner()] if self.config.backend == "xnnpack" else []
        try:
            lowered = to_edge_transform_and_lower(program, partitioner=partitioners).to_executorch()
        except Exception as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise ConfigError(Problem(WHERE, f"ExecuTorch cannot hold it: {first}", "try export=onnx")) from error
        (folder / FILE).write_bytes(lowered.buffer)
        return [folder / FILE]

    def load(self, folder: Path) -> Callable[[Tensor], Tensor]:
        method = Runtime.get().load_program(folder / FILE).load_method("forward")
        assert method is not None

        def run(inputs: Tensor) -> Tensor:
            return torch.cat([method.execute([sample])[0].clone() for sample in inputs.split(1)])

        return run

    def facts(self, folder: Path) -> dict[str, Any]:
        return {"backend": self.config.backend, "batch": 1}
