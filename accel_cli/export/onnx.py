"""ONNX: one file, or above two gigabytes a file and its weights beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from accel_cli.errors import ConfigError, Problem
from accel_cli.export.base import Export
from accel_cli.export.capture import captured, not_known

FILE = "model.onnx"
LARGEST = 1_900_000_000
"""Bytes of weights inside the file: protobuf, which it is written in, ends at 2 GiB, graph and all."""
WHERE = "export=onnx"
_UNKNOWN = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


class ONNX(Export):
    """By torch.onnx, from the graph that torch.export captures."""

    def write(self, model: nn.Module, inputs: Tensor, folder: Path) -> list[Path]:
        for module in model.modules():
            if hasattr(module, "operators"):  # of a quantized layer: see compression/deployed.py
                setattr(module, "operators", "onnx")  # noqa: B010
        program = captured(model, inputs, WHERE)
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        try:
            torch.onnx.export(
                program,
                (inputs,),
                str(folder / FILE),
                dynamo=True,
                input_names=["input"],
                output_names=["output"],
                opset_version=self.config.opset,
                external_data=size > LARGEST,
                verify=False,
            )
        except torch.onnx.OnnxExporterError as error:
            for cause in _chain(error):
                if found := _UNKNOWN.search(str(cause)):
                    raise not_known(program, found[1], WHERE, "ONNX") from error
            why = str(next(cause for cause in reversed(_chain(error)))).splitlines()[0]
            raise ConfigError(
                Problem(WHERE, f"torch.onnx cannot write it: {why}", "try export=torch_export")
            ) from error
        _slim(folder / FILE)
        return sorted(folder.glob(f"{FILE}*"))

    def load(self, folder: Path) -> Callable[[Tensor], Tensor]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        path = str(folder / FILE)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run(inputs: Tensor) -> Tensor:
            return torch.from_numpy(session.run(["output"], {"input": inputs.numpy()})[0])

        return run

    def facts(self, folder: Path) -> dict[str, Any]:
        """The operators' version, which may be another than asked for where an operator has none in it."""
        written = onnx.load(str(folder / FILE), load_external_data=False)
        versions = {entry.domain or "ai.onnx": entry.version for entry in written.opset_import}
        return {"opset": versions.get("ai.onnx"), "operators": len(written.graph.node), "batch": "any"}


def _slim(path: Path) -> None:
    """Without the exporter's notes of where each operator came from: a tenth of a small model's file."""
    model = onnx.load(str(path), load_external_data=False)
    for node in model.graph.node:
        del node.metadata_props[:]
    del model.graph.value_info[:]
    onnx.save(model, str(path))


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found
