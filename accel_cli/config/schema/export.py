"""Export: the form in which the trained model leaves the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Entry, Option


class Export(Option):
    """Nothing is exported; the checkpoint is all."""


class ONNX(Option):
    """ONNX, for any batch size; runs in ONNX Runtime and in much else."""

    opset: int = Field(ge=18, le=23, description="version of ONNX's operators; older runtimes want an older one")


class TorchExport(Option):
    """torch.export's .pt2, for any batch size: a graph that PyTorch runs without the model's code."""


class Safetensors(Option):
    """The weights alone, and in model.json what builds the model that they belong to."""


class ExecuTorch(Option):
    """ExecuTorch's .pte for phones and small devices, for one sample at a time."""

    backend: Literal["xnnpack", "portable"] = Field(
        description="who computes; xnnpack: fast kernels for ARM and x86; portable: plain ones, for any processor"
    )


OPTIONS = {
    "none": Entry(Export, "accel_cli.export.base:Export"),
    "onnx": Entry(ONNX, "accel_cli.export.onnx:ONNX", ("onnx", "onnxscript", "onnxruntime"), extra="onnx"),
    "torch_export": Entry(TorchExport, "accel_cli.export.torch_export:TorchExport"),
    "safetensors": Entry(Safetensors, "accel_cli.export.safetensors:Safetensors"),
    "executorch": Entry(ExecuTorch, "accel_cli.export.executorch:ExecuTorch", ("executorch",)),
}
