"""Linear and convolution layers that compute as integers would: with rounded weights and rounded inputs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel_cli.compression import deployed
from accel_cli.compression.rounding import affine, fake, scale_of


@dataclass(frozen=True)
class Scheme:
    """How the numbers of a layer are rounded."""

    weight_bits: int
    activation_bits: int = 8
    activations: str = "static"
    """``static``: by ranges that calibration found; ``dynamic``: by the range of each input; ``none``: as they are."""
    group_size: int | None = None
    """Weights along the input that share a scale; None: all those of an output channel."""
    power_of_two: bool = False
    """Scales are powers of two and zero points those of fixed-point numbers: 0, or half the range for signed ones."""
    rounds_output: bool = False
    """Whether the output is rounded too, where what follows reads it in another way than as a rounded input."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Quantized(nn.Module):
    """What the quantized layers share. Weights are symmetric per output channel, inputs affine per tensor.

    The parameters keep their names and their full precision; the scale of the weights follows them in every forward.
    Ranges of inputs are buffers, found once by calibration, so that ranks agree and nothing drifts.
    """

    weight: Tensor
    bias: Any
    input_scale: Tensor
    input_zero_point: Tensor
    output_scale: Tensor
    output_zero_point: Tensor

    def arrange(self, layer: nn.Module, scheme: Scheme) -> None:
        """Take over the parameters of ``layer``, and make room for the ranges."""
        self.scheme = scheme
        self.weight = cast(Tensor, layer.weight)
        self.bias = layer.bias
        self.train(layer.training)
        device = self.weight.device
        for kind, present in (("input", scheme.activations == "static"), ("output", scheme.rounds_output)):
            if present:
                self.register_buffer(f"{kind}_scale", torch.ones((), device=device))
                self.register_buffer(f"{kind}_zero_point", torch.zeros((), dtype=torch.int32, device=device))

    @property
    def weight_bits(self) -> int:
        return self.scheme.weight_bits

    @property
    def activation_bits(self) -> int:
        return self.scheme.activation_bits

    @property
    def levels(self) -> int:
        """The largest integer of a weight; the smallest is its negative."""
        return int(2 ** (self.weight_bits - 1) - 1)

    @torch.no_grad()
    def calibrate(self, kind: str, low: Tensor, high: Tensor) -> None:
        """Set the range of the ``input`` or the ``output``."""
        scale, zero_point = affine(low, high, self.activation_bits, self.scheme.power_of_two)
        getattr(self, f"{kind}_scale").copy_(scale)
        getattr(self, f"{kind}_zero_point").copy_(zero_point)

    def grouped(self) -> Tensor:
        """The weights, those that share a scale in a row: [rows, n], a last group filled up with zeros."""
        weight, size = self.weight.float().flatten(1), self.scheme.group_size
        if size is None:
            return weight
        return functional.pad(weight, (0, -weight.shape[1] % size)).reshape(-1, size)

    @torch.no_grad()
    def weight_scale(self) -> Tensor:
        """fp32 [out], or [out * groups] where groups share a scale."""
        return scale_of(self.grouped().abs().amax(1), self.levels, self.scheme.power_of_two)

    def quantized_weight(self) -> Tensor:
        """The weights as the integers stand for them, in the weight's type and shape; differentiable."""
        scale = self.weight_scale()
        zeros = torch.zeros_like(scale, dtype=torch.int32)
        rows = torch.fake_quantize_per_channel_affine(self.grouped(), scale, zeros, 0, -self.levels, self.levels)
        if self.scheme.group_size is not None:
            rows = rows.reshape(self.weight.shape[0], -1)[:, : self.weight[0].numel()]
        return rows.reshape(self.weight.shape).to(self.weight.dtype)

    @torch.no_grad()
    def integer_weight(self, scale: Tensor | None = None) -> Tensor:
        """The integers themselves, int8 [rows, n] as ``grouped`` has them; of another ``scale``, where one is given."""
        inverse = 1 / (self.weight_scale() if scale is None else scale)
        return (self.grouped() * inverse[:, None]).round().clamp(-self.levels, self.levels).to(torch.int8)

    def quantized_bias(self) -> Tensor | None:
        """The bias; of fixed-point layers in whole units of their sums, as hardware adds it; gradients pass as is."""
        if self.bias is None or not self.scheme.power_of_two or self.scheme.activations != "static":
            return self.bias
        unit = self.weight_scale().reshape(len(self.bias), -1).amin(1) * self.input_scale
        return (self.bias.detach() / unit).round() * unit + (self.bias - self.bias.detach())

    def quantized_input(self, inputs: Tensor) -> Tensor:
        if self.scheme.activations == "none":
            return inputs
        if self.scheme.activations == "dynamic":
            low, high = torch.aminmax(inputs.detach())
            scale, zero_point = affine(low, high, self.activation_bits, self.scheme.power_of_two)
            return fake(inputs, scale, zero_point, self.activation_bits)
        return fake(inputs, self.input_scale, self.input_zero_point, self.activation_bits)

    def quantized_output(self, output: Tensor) -> Tensor:
        if not self.scheme.rounds_output:
            return output
        return fake(output, self.output_scale, self.output_zero_point, self.activation_bits)

    def deployed(self) -> nn.Module:
        """The layer with integers for weights, as it is exported."""
        raise NotImplementedError

    @property
    def stored_bytes(self) -> int:
        """What its parameters and buffers take as deployed; of fixed-point weights, packed into the bits they have."""
        packed = self.scheme.power_of_two or self.scheme.group_size is not None
        integers = math.ceil(self.grouped().numel() * (self.weight_bits if packed else 8) / 8)
        rest = [*([] if self.bias is None else [self.bias]), *self.buffers()]
        return integers + 4 * len(self.grouped()) + sum(one.numel() * one.element_size() for one in rest)


class QuantizedLinear(Quantized, nn.Linear):
    """[..., in] -> [..., out]"""

    def forward(self, inputs: Tensor) -> Tensor:
        output = functional.linear(self.quantized_input(inputs), self.quantized_weight(), self.quantized_bias())
        return self.quantized_output(output)

    def deployed(self) -> nn.Module:
        return deployed.Linear(self) if self.scheme.group_size is None else deployed.PackedLinear(self)


class QuantizedConvolution(Quantized):
    """[n, in, ...] -> [n, out, ...]"""

    def forward(self, inputs: Tensor) -> Tensor:
        convolve: Any = self._conv_forward
        output = convolve(self.quantized_input(inputs), self.quantized_weight(), self.quantized_bias())
        return self.quantized_output(output)

    def deployed(self) -> nn.Module:
        return deployed.Convolution(self)


class QuantizedConv1d(QuantizedConvolution, nn.Conv1d):
    """[n, in, length] -> [n, out, length]"""


class QuantizedConv2d(QuantizedConvolution, nn.Conv2d):
    """[n, in, height, width] -> [n, out, height, width]"""


KINDS: dict[type[nn.Module], type[Quantized]] = {
    nn.Linear: QuantizedLinear,
    nn.Conv1d: QuantizedConv1d,
    nn.Conv2d: QuantizedConv2d,
}
"""Layers of exactly these types; one of a subclass may compute something else."""


def quantized(layer: nn.Module, scheme: Scheme) -> Quantized:
    """The layer around the same parameters, rounded as ``scheme`` says; its ranges are still to be calibrated."""
    kind: Any = KINDS[type(layer)]
    has_bias = layer.bias is not None
    made: Quantized
    if isinstance(layer, nn.Linear):
        made = kind(layer.in_features, layer.out_features, bias=has_bias, device="meta")
    else:
        shape = {name: getattr(layer, name) for name in SHAPE_OF_CONVOLUTION}
        made = kind(**shape, bias=has_bias, device="meta")
    made.arrange(layer, scheme)
    return made


SHAPE_OF_CONVOLUTION = (
    "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
)  # fmt: skip
