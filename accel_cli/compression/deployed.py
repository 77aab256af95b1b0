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


def dequantize(integers: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None = None) -> Tensor:
    """(integers - zero_point) * scale, each along ``axis``; fp32."""
    if is_in_onnx_export():
        attributes: Any = {} if axis is None else {"axis": axis}
        inputs = (integers, scale, zero_point)
        return symbolic("DequantizeLinear", inputs, attributes, dtype=torch.float32, shape=integers.shape)
    if axis is not None:
        shape = [-1 if axis == number else 1 for number in range(integers.dim())]
        scale, zero_point = scale.view(shape), zero_point.view(shape)
    return (integers.float() - zero_point.float()) * scale


class Rounded(nn.Module):
    """Values as unsigned integers of so many bits stand for them."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: Tensor, zero_point: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.uint8 if bits <= BYTE else torch.int32))

    def forward(self, values: Tensor) -> Tensor:
        if not is_in_onnx_export():
            return fake(values, self.scale, self.zero_point.to(torch.int32), self.bits)
        zero = self.zero_point.float()
        if self.bits > BYTE:
            # No integer kernel reads these: the same numbers, in floating point.
            return (((values / self.scale).round() + zero).clamp(0, 2**self.bits - 1) - zero) * self.scale
        if self.bits < BYTE:
            values = torch.minimum(values, (2**self.bits - 1 - zero) * self.scale)
        parameters = (self.scale, self.zero_point)
        integers = symbolic("QuantizeLinear", (values, *parameters), dtype=torch.uint8, shape=values.shape)
        return dequantize(integers, *parameters)


class Layer(nn.Module):
    """What the deployed layers share: int8 weights per output channel along ``axis``, and the rest as it was."""

    weight: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor
    bias: Tensor | None
    bias_scale: Tensor
    bias_zero_point: Tensor

    def __init__(self, layer: Any, axis: int) -> None:
        super().__init__()
        self.axis = axis
        scheme, bits = layer.scheme, layer.activation_bits
        scale = layer.weight_scale()
        static = scheme.activations == "static"
        if static and layer.bias is not None:
            scale = torch.maximum(scale, layer.bias.detach().float().abs() / (layer.input_scale * LARGEST_BIAS))
        self.register_buffer("weight", layer.integer_weight(scale).reshape(layer.weight.shape))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight_zero_point", torch.zeros_like(scale, dtype=torch.int8))
        bias = None if layer.bias is None else layer.bias.detach().float().clone()
        if static and bias is not None:
            step = scale * layer.input_scale
            bias = (bias / step).round().to(torch.int32)
            self.register_buffer("bias_scale", step)
            self.register_buffer("bias_zero_point", torch.zeros_like(step, dtype=torch.int32))
        self.register_buffer("bias", bias)
        self.input: nn.Module = nn.Identity()
        self.output: nn.Module = nn.Identity()
        self.activations = scheme.activations
        if static:
            self.input = Rounded(layer.input_scale, layer.input_zero_point, bits)
        if scheme.rounds_output:
            self.output = Rounded(layer.output_scale, layer.output_zero_point, bits)

    def numbers(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias as the integers stand for them."""
        weight = dequantize(self.weight, self.weight_scale, self.weight_zero_point, self.axis)
        if self.bias is None or self.activations != "static":
            return weight, self.bias
        return weight, dequantize(self.bias, self.bias_scale, self.bias_zero_point, 0)

    def dynamic(self, inputs: Tensor, operator: str, like: Tensor, attributes: Any) -> Tensor:
        """The product of integers, of inputs by their own range; ``like`` has its shape, channels at ``axis`` - 0."""
        kinds, shapes = (torch.uint8, torch.float32, torch.uint8), (inputs.shape, (), ())
        integers, scale, zero_point = symbolic_multi_out(
            "DynamicQuantizeLinear", (inputs,), dtypes=kinds, shapes=shapes
        )
        operands = (integers, self.weight, zero_point)
        product = symbolic(operator, operands, attributes, dtype=torch.int32, shape=like.shape)
        behind = (-1,) + (1,) * (self.weight.dim() - 2) if operator == "ConvInteger" else (-1,)
        output = product.float() * (scale * self.weight_scale.view(behind))
        return output if self.bias is None else output + self.bias.view(behind)


class Linear(Layer):
    """[..., in] -> [..., out]; the weight lies as [in, out], so that nothing stands between it and the product."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, axis=1)
        self.weight = self.weight.t().contiguous()

    def forward(self, inputs: Tensor) -> Tensor:
        if self.activations == "dynamic":
            if is_in_onnx_export():
                like = inputs.new_empty((*inputs.shape[:-1], self.weight.shape[1]))
                return self.output(self.dynamic(inputs, "MatMulInteger", like, {}))
            inputs = ranged(inputs)
        weight, bias = self.numbers()
        inputs = self.input(inputs)
        if bias is not None and inputs.dim() == 2:
            return self.output(torch.addmm(bias, inputs, weight))  # type: ignore[no-any-return]
        product = inputs @ weight
        return self.output(product if bias is None else product + bias)  # type: ignore[no-any-return]


class Convolution(Layer):
    """[n, in, ...] -> [n, out, ...], of one or two dimensions."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, axis=0)
        self.dimensions = layer.weight.dim() - 2
        self.padding_mode = layer.padding_mode
        self.around = layer._reversed_padding_repeated_twice
        self.padding = layer.padding
        self.stride, self.dilation, self.groups = layer.stride, layer.dilation, layer.groups

    def forward(self, inputs: Tensor) -> Tensor:
        whole = self.input(inputs)
        padding = self.padding
        if self.padding_mode != "zeros":
            whole, padding = functional.pad(whole, self.around, mode=self.padding_mode), 0
        if self.activations == "dynamic" and not is_in_onnx_export():
            whole = ranged(whole)
        weight, bias = self.numbers()
        convolve = functional.conv2d if self.dimensions == 2 else functional.conv1d
        output = convolve(whole, weight, bias, self.stride, padding, self.dilation, self.groups)
        if self.activations == "dynamic" and is_in_onnx_export():
            output = self.dynamic(whole, "ConvInteger", output, self.attributes(padding))
        return self.output(output)  # type: ignore[no-any-return]

    def attributes(self, padding: Any) -> dict[str, Any]:
        found: dict[str, Any] = {
            "kernel_shape": list(self.weight.shape[2:]),
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "group": self.groups,
        }
        if padding == "same":
            # As PyTorch pads: what is left over, behind.
            found["auto_pad"] = "SAME_UPPER"
        elif padding not in (0, "valid"):
            found["pads"] = [*padding, *padding]
        return found


def ranged(values: Tensor) -> Tensor:
    """Rounded to a byte by their own range."""
    scale, zero_point = affine(*torch.aminmax(values), BYTE, False)
    return fake(values, scale, zero_point, BYTE)


class PackedLinear(nn.Module):
    """[..., in] -> [..., out], of weights in groups along the input, two to a byte where they have four bits."""

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.outputs, self.inputs = layer.weight.shape
        self.bits = layer.weight_bits
        self.size: int = layer.scheme.group_size  # type: ignore[assignment]
        blocks = math.ceil(self.inputs / self.size)
        unsigned = (layer.integer_weight().int() + 2 ** (self.bits - 1)).to(torch.uint8)
        if self.bits == 4:
            unsigned = unsigned[:, ::2] | unsigned[:, 1::2] << 4
        self.register_buffer("weight", unsigned.reshape(self.outputs, blocks, -1).contiguous())
        self.register_buffer("weight_scale", layer.weight_scale())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        if is_in_onnx_export():
            attributes: Any = {"K": self.inputs, "N": self.outputs, "bits": self.bits, "block_size": self.size}
            operands, shape = (inputs, self.weight, self.weight_scale), (*inputs.shape[:-1], self.outputs)
            output = symbolic(PACKED, operands, attributes, dtype=torch.float32, shape=shape, version=1)
            return output if self.bias is None else output + self.bias
        rows = self.weight.reshape(self.weight_scale.shape[0], -1)
        if self.bits == 4:
            rows = torch.stack((rows & 15, rows >> 4), -1).flatten(1)
        weight = (rows.float() - 2 ** (self.bits - 1)) * self.weight_scale[:, None]
        weight = weight.reshape(self.outputs, -1)[:, : self.inputs]
        return functional.linear(inputs, weight, self.bias)
