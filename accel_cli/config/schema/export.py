"""Export: the form in which the trained model leaves the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from accel_cli.config.schema.base import Count, Entry, Option


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


class FPGA(Option):
    """An HLS project for an FPGA, by hls4ml: what runs here is its bit-accurate emulation in C++."""

    backend: Literal["Vitis", "Vivado", "Quartus", "Catapult"] = Field(
        description="the vendor's tool that the project is for; it runs later, where it is installed"
    )
    part: str | None = Field(min_length=1, description="the FPGA, as the tool calls it; null: hls4ml's default for it")
    clock_period: float = Field(gt=0, le=1000, description="nanoseconds that a cycle may take")
    io_type: Literal["io_parallel", "io_stream"] = Field(
        description="io_parallel: all values of a layer at once; io_stream: one pixel after the other, for larger nets"
    )
    strategy: Literal["latency", "resource"] = Field(
        description="latency: weights become logic; resource: they are read from memory, for layers of many weights"
    )
    reuse_factor: Count = Field(description="how often a multiplier is used for one sample; 1: one for each product")


OPTIONS = {
    "none": Entry(Export, "accel_cli.export.base:Export"),
    "onnx": Entry(ONNX, "accel_cli.export.onnx:ONNX", ("onnx", "onnxscript", "onnxruntime"), extra="onnx"),
    "torch_export": Entry(TorchExport, "accel_cli.export.torch_export:TorchExport"),
    "safetensors": Entry(Safetensors, "accel_cli.export.safetensors:Safetensors"),
    "executorch": Entry(ExecuTorch, "accel_cli.export.executorch:ExecuTorch", ("executorch",)),
    "fpga": Entry(FPGA, "accel_cli.export.fpga:FPGA", ("hls4ml",), extra="fpga", programs=("g++",)),
}
