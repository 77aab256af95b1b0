"""Quantized layers as a runtime takes them: integer weights, in operations that it joins into integer ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.onnx import is_in_onnx_export
from torch.onnx.ops import symbolic, symbolic_multi_out

from accel_cli.compression.rounding import affine, fake

BYTE = 8
LARGEST_BIAS = 2**30
"""A bias is stored as int32, in steps of the input's times the weight's."""
PACKED = "com.microsoft::MatMulNBits"
"""https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits"""


class Deployed(nn.Module):
    """Computes what the layer did, from integers; plain PyTorch, so that any program can be made of it."""

    operators = "torch"
    """``onnx``: its forward is made of ONNX's operators, to be captured and written, and computes nothing here."""

    @property
    def is_symbolic(self) -> bool:
        return self.operators == "onnx" or is_in_onnx_export()


class Rounded(Deployed):
    """Values as unsigned integers of so many bits stand for them."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.uint8 if bits <= BYTE else torch.int32))

    def forward(self, values: Tensor) -> Tensor:
        if not self.is_symbolic:
            return fake(values, self.scale, self.zero_point.to(torch.int32), self.bits)
        zero = self.zero_point.float()
        if self.bits > BYTE:
            # No integer kernel reads these: the same numbers, in floating point.
            return (((values / self.scale).round() + zero).clamp(0, 2**self.bits - 1) - zero) * self.scale
        if self.bits < BYTE:
            values = torch.minimum(values, (2**self.bits - 1 - zero) * self.scale)
        parameters = (self.scale, self.zero_point)
        integers = symbolic("QuantizeLinear", (values, *parameters), dtype=torch.uint8, shape=values.shape)
        return symbolic("DequantizeLinear", (integers, *parameters), dtype=torch.float32, shape=values.shape)


class Layer(Deployed):
    """int8 weights with a scale for each output, along ``axis``; inputs and outputs rounded as they were."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor
    bias: Tensor | None
    bias_scale: Tensor

    def __init__(self, layer: Any, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.activations = layer.scheme.activations
        self.is_joined = self.activations == "static" and layer.activation_bits <= BYTE
        scale, bias, bits = layer.weight_scale(), layer.bias, layer.activation_bits
        bias = None if bias is None else bias.detach().float().clone()
        self.input: nn.Module = nn.Identity()
        self.output: nn.Module = nn.Identity()
        if self.activations == "static":
            self.input = Rounded(layer.input_scale, layer.input_zero_point, bits)
            if bias is not None:
                # A channel of almost nothing but its bias: in steps of its weights that would not fit.
                scale = torch.maximum(scale, bias.abs() / (layer.input_scale * LARGEST_BIAS))
                self.register_buffer("bias_scale", scale * layer.input_scale)
                bias = (bias / self.bias_scale).round().to(torch.int32)
        if layer.scheme.rounds_output:
            self.output = Rounded(layer.output_scale, layer.output_zero_point, bits)
        self.register_buffer("weight", layer.integer_weight(scale).reshape(layer.weight.shape))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero_point", torch.zeros_like(scale, dtype=torch.int8))
        self.register_buffer("bias", bias)

    def numbers(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the integers stand for them."""
        if self.is_symbolic and self.is_joined:
            facts: Any = {"dtype": torch.float32, "attrs": {"axis": self.axis}, "shape": self.weight.shape}
            # Without its zero point ONNX Runtime would not join the product of matrices.
            weight = symbolic("DequantizeLinear", (self.weight, self.weight_scale, self.weight_zero_point), **facts)
            if self.bias is None:
                return weight, None
            facts |= {"attrs": {"axis": 0}, "shape": self.bias.shape}
            return weight, symbolic("DequantizeLinear", (self.bias, self.bias_scale), **facts)
        # Of plain operations: a runtime computes it once, when it loads the file.
        along = [-1 if self.axis == number else 1 for number in range(self.weight.dim())]
        weight = self.weight.float() * self.weight_scale.view(along)
        return weight, self.bias if self.activations != "static" or self.bias is None else self.bias * self.bias_scale


class Linear(Layer):
    """[..., in] -> [..., out]; the weight lies as [in, out], so that nothing stands between it and the product."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, axis=1)
        self.weight = self.weight.t().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        if self.activations == "dynamic":
            if self.is_symbolic:
                return self.integers(inputs)
            inputs = fake(inputs, *affine(*torch.aminmax(inputs), BYTE, False), BYTE)
        weight, bias = self.numbers()
        inputs = self.input(inputs)
        if bias is not None and inputs.dim() == 2:
            return self.output(torch.addmm(bias, inputs, weight))  # type: ignore[no-any-return]
        product = inputs @ weight
        return self.output(product if bias is None else product + bias)  # type: ignore[no-any-return]

    def integers(self, inputs: Tensor) -> Tensor:
        """The product of integers, of the inputs by their own range."""
        kinds = (torch.uint8, torch.float32, torch.uint8)
        rounded, scale, zero_point = symbolic_multi_out(
            "DynamicQuantizeLinear", (inputs,), dtypes=kinds, shapes=(inputs.shape, (), ())
        )
        operands = (rounded, self.weight, zero_point, self.weight_zero_point)
        shape = (*inputs.shape[:-1], self.weight.shape[1])
        product = symbolic("MatMulInteger", operands, dtype=torch.int32, shape=shape)
        output = product.float() * (scale * self.weight_scale)
        return output if self.bias is None else output + self.bias


class Convolution(Layer):
    """[n, in, ...] -> [n, out, ...], of one or two dimensions."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, axis=0)
        self.convolve = functional.conv2d if layer.weight.dim() == 4 else functional.conv1d
        self.shape = layer.stride, layer.padding, layer.dilation, layer.groups
        self.around: Any = None
        if layer.padding_mode != "zeros":
            self.around, self.mode = layer._reversed_padding_repeated_twice, layer.padding_mode
            self.shape = layer.stride, 0, layer.dilation, layer.groups

    def forward(self, inputs: Tensor) -> Tensor:
        inputs = self.input(inputs)
        if self.around is not None:
            inputs = functional.pad(inputs, self.around, mode=self.mode)
        return self.output(self.convolve(inputs, *self.numbers(), *self.shape))  # type: ignore[no-any-return]


class PackedLinear(Deployed):
    """[..., in] -> [..., out], of weights with four bits, two to a byte, in groups along the input."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.outputs, self.inputs = layer.weight.shape
        self.size: int = layer.scheme.group_size
        unsigned = (layer.integer_weight() + 8).to(torch.uint8)
        packed = unsigned[:, ::2] | unsigned[:, 1::2] << 4
        self.register_buffer("weight", packed.reshape(self.outputs, math.ceil(self.inputs / self.size), -1))
        self.register_buffer("weight_scale", layer.weight_scale())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        if self.is_symbolic:
            attributes: Any = {"K": self.inputs, "N": self.outputs, "bits": 4, "block_size": self.size}
            operands, shape = (inputs, self.weight, self.weight_scale), (*inputs.shape[:-1], self.outputs)
            output = symbolic(PACKED, operands, attributes, dtype=torch.float32, shape=shape, version=1)
            return output if self.bias is None else output + self.bias
        rows = self.weight.reshape(len(self.weight_scale), -1)
        rows = torch.stack((rows & 15, rows >> 4), -1).flatten(1)
        weight = ((rows.float() - 8) * self.weight_scale[:, None]).reshape(self.outputs, -1)
        return functional.linear(inputs, weight[:, : self.inputs], self.bias)
